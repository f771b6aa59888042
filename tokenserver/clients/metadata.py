"""What a client's metadata may be (RFC 7591 section 2, OIDC Dynamic Client Registration 1.0 section 2)."""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final
from uuid import UUID

from tokenserver.errors import FieldError

DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPES: Final = frozenset(
    {
        "authorization_code",
        "client_credentials",
        "implicit",
        "password",
        "refresh_token",
        DEVICE_CODE,
        TOKEN_EXCHANGE,
    }
)
# OIDC Registration section 2: the grant types that a response type needs. Its words in alphabetical order.
RESPONSE_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "code": frozenset({"authorization_code"}),
    "code id_token": frozenset({"authorization_code", "implicit"}),
    "code id_token token": frozenset({"authorization_code", "implicit"}),
    "code token": frozenset({"authorization_code", "implicit"}),
    "id_token": frozenset({"implicit"}),
    "id_token token": frozenset({"implicit"}),
}
SECRET_METHODS: Final = frozenset({"client_secret_basic", "client_secret_post", "client_secret_jwt"})
ASSERTION_METHODS: Final = frozenset({"client_secret_jwt", "private_key_jwt"})
AUTH_METHODS: Final = SECRET_METHODS | ASSERTION_METHODS | {"none"}
# Asymmetric alone: what signs ID tokens, userinfo and introspection, and what clients may sign with.
SIGNING_ALGS: Final = ("RS256", "PS256", "ES256", "EdDSA")
SECRET_ALGS: Final = ("HS256",)  # client_secret_jwt
KEY_MANAGEMENT_ALGS: Final = ("RSA-OAEP-256", "ECDH-ES")
CONTENT_ENCRYPTION_ALGS: Final = ("A256GCM",)
DEFAULT_ENC: Final = "A256GCM"
# What this server signs for a client, each by an algorithm of its own.
TOKEN_ALGS: Final = (
    "access_token_signed_response_alg",
    "id_token_signed_response_alg",
    "introspection_signed_response_alg",
    "userinfo_signed_response_alg",
)
REDIRECTING: Final = frozenset({"authorization_code", "implicit"})
CONFIDENTIAL: Final = frozenset({"client_credentials", TOKEN_EXCHANGE})
# OpenID Connect Core sections 5.4 and 11: they speak of a user. Every other scope is a permission.
STANDARD_SCOPES: Final = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})

CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")
# Who did something, in the log, is a user's id, a client's, or one of these words.
RESERVED_IDS: Final = frozenset({"cli", "registration"})
MAX_NAME: Final = 255
# RFC 7519 section 4.1.3: a StringOrURI. The list is kept with its members joined by spaces.
AUDIENCE: Final = re.compile(r"[\x21-\x7E]{1,255}")
MAX_AUDIENCES: Final = 20
MAX_TEXTS: Final = 20
MAX_SECONDS: Final = 2**31 - 1

MAX_REDIRECT_URIS: Final = 20
MAX_URI: Final = 2000
# RFC 3986 without what has no place in a redirect URI: user information and a fragment (RFC 6749 section 3.1.2).
_REST: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]"
WEB_URI: Final = re.compile(rf"(https?)://({_HOST})(?::([0-9]{{1,5}}))?(?:[/?]{_REST})?")
# RFC 8252 section 7.1: a domain name of the app's maker, reversed. The dot keeps javascript: and the like away.
APP_URI: Final = re.compile(rf"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/(?!/[^/?]*@){_REST}")
FRAGMENT: Final = re.compile(_REST)
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Shown to people; asked by this server, which may ask by http on the loopback interface alone, if at all
# (`web.fetch`); asked by a browser or by this server when somebody signs out.
PAGES: Final = ("client_uri", "logo_uri", "policy_uri", "tos_uri")
FETCHED: Final = ("jwks_uri", "sector_identifier_uri")
LOGOUT: Final = ("backchannel_logout_uri", "frontchannel_logout_uri")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What can be edited, by the names of RFC 7591, OpenID Connect Dynamic Registration and the logout
    specifications, and some of ours:

    `scope`: the most it may ask for. `audience`: of its access tokens, instead of this server. `first_party`: users
    are not asked for consent, and its scope is all that they hold. `assertion_audience`: what the `aud` of its
    assertions may be: "issuer" alone (FAPI 2.0), or "endpoint" too. `token_exchange`: whose tokens it may exchange
    (RFC 8693): `{"clients": [client_id, … or "*"], "impersonation": bool, "delegation": bool}`; None: nobody's.

    An algorithm of None: the server's default for signatures, no encryption, plain JSON for userinfo.
    """

    client_name: str = ""
    redirect_uris: Sequence[str] = ()
    grant_types: Sequence[str]
    response_types: Sequence[str] = ()
    scope: Sequence[str] = ()
    token_endpoint_auth_method: str = "client_secret_basic"
    jwks: Mapping[str, Any] | None = None
    audience: Sequence[str] = ()
    first_party: bool = False

    # The rest is kept in one column, where it isn't the default.
    application_type: str = "web"
    contacts: Sequence[str] = ()
    client_uri: str | None = None
    logo_uri: str | None = None
    policy_uri: str | None = None
    tos_uri: str | None = None
    jwks_uri: str | None = None
    software_id: str | None = None
    software_version: str | None = None
    subject_type: str = "public"
    sector_identifier_uri: str | None = None
    id_token_signed_response_alg: str | None = None
    id_token_encrypted_response_alg: str | None = None
    id_token_encrypted_response_enc: str | None = None
    userinfo_signed_response_alg: str | None = None
    introspection_signed_response_alg: str | None = None
    access_token_signed_response_alg: str | None = None
    request_object_signing_alg: str | None = None
    token_endpoint_auth_signing_alg: str | None = None
    default_max_age: int | None = None
    require_auth_time: bool = False
    default_acr_values: Sequence[str] = ()
    initiate_login_uri: str | None = None
    request_uris: Sequence[str] = ()
    post_logout_redirect_uris: Sequence[str] = ()
    frontchannel_logout_uri: str | None = None
    frontchannel_logout_session_required: bool = False
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool = False
    assertion_audience: str = "endpoint"
    token_exchange: Mapping[str, Any] | None = None


COLUMNS: Final = (
    "client_name",
    "redirect_uris",
    "grant_types",
    "response_types",
    "scope",
    "token_endpoint_auth_method",
    "jwks",
    "audience",
    "first_party",
)
# Of the rest, the default of each.
OPTIONAL: Final[Mapping[str, Any]] = {f.name: f.default for f in fields(Metadata) if f.name not in COLUMNS}


def id_faults(client_id: str) -> list[FieldError]:
    if CLIENT_ID.fullmatch(client_id) and not _is_uuid(client_id) and client_id.lower() not in RESERVED_IDS:
        return []
    # A token's `sub` is a user's id or a client's; the two must never be taken for each other.
    return [
        FieldError("client_id", "Letters, digits, . _ ~ -; at most 128; no UUID, not `cli`, not `registration`.")
    ]


def completed(metadata: Metadata) -> Metadata:
    """In the one spelling that is kept, with the defaults that depend on other members."""
    response_types = {" ".join(sorted(each.split(" "))) for each in metadata.response_types}
    if not response_types and "authorization_code" in metadata.grant_types:
        response_types = {"code"}  # RFC 7591 section 2
    enc = metadata.id_token_encrypted_response_enc
    return replace(
        metadata,
        grant_types=sorted(set(metadata.grant_types)),
        response_types=sorted(response_types),
        scope=sorted(set(metadata.scope)),
        id_token_encrypted_response_enc=enc or (DEFAULT_ENC if metadata.id_token_encrypted_response_alg else None),
    )


def token_algs(metadata: Metadata) -> frozenset[str]:
    """Those that this server signs by, for this client."""
    return frozenset(alg for name in TOKEN_ALGS if (alg := getattr(metadata, name)) is not None)


def faults(metadata: Metadata, known_scopes: frozenset[str]) -> list[FieldError]:
    """All but those of `jwks`; of `completed` metadata."""
    errors = [
        *_grant_faults(metadata),
        *_redirect_faults(metadata),
        *_address_faults(metadata),
        *_text_faults(metadata),
        *_choice_faults(metadata),
        *_key_faults(metadata),
        *_subject_faults(metadata),
        *_exchange_faults(metadata),
    ]
    if not set(metadata.scope) <= known_scopes:
        errors.append(FieldError("scope", "Holds a scope that this server doesn't know."))
    if not all(AUDIENCE.fullmatch(each) for each in metadata.audience):
        errors.append(FieldError("audience", "Identifiers of resources, without spaces."))
    if len(metadata.audience) > MAX_AUDIENCES or len(set(metadata.audience)) < len(metadata.audience):
        errors.append(FieldError("audience", f"Each once, at most {MAX_AUDIENCES}."))
    if metadata.default_max_age is not None and not 0 <= metadata.default_max_age <= MAX_SECONDS:
        errors.append(FieldError("default_max_age", f"Seconds, 0 to {MAX_SECONDS}."))
    return errors


def _grant_faults(metadata: Metadata) -> list[FieldError]:
    errors = []
    grant_types = set(metadata.grant_types)
    if not grant_types or not grant_types <= GRANT_TYPES:
        errors.append(FieldError("grant_types", "One or more of " + ", ".join(sorted(GRANT_TYPES)) + "."))
    if grant_types == {"refresh_token"}:
        errors.append(FieldError("grant_types", "refresh_token needs another grant that issues the first one."))
    if metadata.token_endpoint_auth_method == "none" and not CONFIDENTIAL.isdisjoint(grant_types):
        # RFC 6749 section 4.4; RFC 8693 section 2.1: a name that anybody can say gets no token by itself
        errors.append(FieldError("grant_types", "client_credentials, token-exchange: confidential clients alone."))
    needed = [RESPONSE_TYPES.get(each) for each in metadata.response_types]
    if not all(each is not None and each <= grant_types for each in needed):
        errors.append(FieldError("response_types", "Each needs its grant types in grant_types."))
    elif REDIRECTING & grant_types and not needed:
        errors.append(FieldError("response_types", "implicit needs one that says what is sent back."))
    return errors


def _redirect_faults(metadata: Metadata) -> list[FieldError]:
    uris = metadata.redirect_uris
    # RFC 7591 section 2: required of whoever uses a flow with redirection
    if not uris and REDIRECTING & set(metadata.grant_types):
        return [FieldError("redirect_uris", "authorization_code and implicit need one.")]
    errors = _uris_faults("redirect_uris", uris, metadata)
    if errors or metadata.application_type != "web" or "implicit" not in metadata.grant_types:
        return errors
    return [
        # OpenID Connect Dynamic Registration section 2, application_type
        FieldError(f"redirect_uris.{position}", "Of a web client with implicit: https, and not this machine.")
        for position, uri in enumerate(uris)
        if not uri.startswith("https:") or _host(uri) in LOOPBACK
    ]


def _uris_faults(field: str, uris: Sequence[str], metadata: Metadata) -> list[FieldError]:
    if len(uris) > MAX_REDIRECT_URIS or len(set(uris)) < len(uris):
        return [FieldError(field, f"Each once, at most {MAX_REDIRECT_URIS}.")]
    is_public = metadata.token_endpoint_auth_method == "none"
    found = ((position, _redirect_fault(uri, is_public=is_public)) for position, uri in enumerate(uris))
    return [FieldError(f"{field}.{position}", fault) for position, fault in found if fault]


def _redirect_fault(uri: str, *, is_public: bool) -> str | None:
    if len(uri) > MAX_URI:
        return f"At most {MAX_URI} characters."
    if web := WEB_URI.fullmatch(uri):
        scheme, host, port = web.groups()
        if not _is_host(host) or (port is not None and not 0 < int(port) < 65536):
            return NOT_A_REDIRECT_URI
        if scheme == "http" and host not in LOOPBACK:
            # RFC 9700 section 2.6; RFC 8252 section 7.3
            return "https, but for 127.0.0.1, [::1] and localhost."
        return None
    if APP_URI.fullmatch(uri):
        return None if is_public else "A private-use scheme is for public clients (RFC 8252)."
    return NOT_A_REDIRECT_URI


NOT_A_REDIRECT_URI: Final = (
    "An absolute URI of https, http on the loopback interface, or a private-use scheme such as com.example.app:/; "
    "without a fragment and without user information."
)


def _address_faults(metadata: Metadata) -> list[FieldError]:
    errors = _uris_faults("post_logout_redirect_uris", metadata.post_logout_redirect_uris, metadata)
    for name in (*PAGES, *FETCHED, *LOGOUT):
        uri = getattr(metadata, name)
        if uri is not None and not _is_web_address(uri, fragment=name in PAGES):
            errors.append(FieldError(name, NOT_A_WEB_ADDRESS))
    # OpenID Connect Core section 4: https; on this machine too
    login = metadata.initiate_login_uri
    if login is not None and not (login.startswith("https:") and _is_web_address(login)):
        errors.append(FieldError("initiate_login_uri", "An https URL without a fragment."))
    uris = metadata.request_uris
    if len(uris) > MAX_REDIRECT_URIS or len(set(uris)) < len(uris):
        errors.append(FieldError("request_uris", f"Each once, at most {MAX_REDIRECT_URIS}."))
    errors += [
        # OpenID Connect Core section 6.2: the fragment may be a digest of what is there
        FieldError(f"request_uris.{position}", NOT_A_WEB_ADDRESS)
        for position, uri in enumerate(uris)
        if not _is_web_address(uri, fragment=True)
    ]
    front = metadata.frontchannel_logout_uri
    # Front-Channel Logout section 2: scheme, host and port of a registered redirect URI
    if front is not None and _origin(front) not in {_origin(uri) for uri in metadata.redirect_uris}:
        errors.append(FieldError("frontchannel_logout_uri", "Its origin is that of one of the redirect_uris."))
    return errors


NOT_A_WEB_ADDRESS: Final = "An https URL, http on the loopback interface alone; without user information."


def _is_web_address(uri: str, *, fragment: bool = False) -> bool:
    address, _, part = uri.partition("#") if fragment else (uri, "", "")
    is_short = len(uri) <= MAX_URI and FRAGMENT.fullmatch(part) is not None
    return is_short and WEB_URI.fullmatch(address) is not None and _redirect_fault(address, is_public=False) is None


def _text_faults(metadata: Metadata) -> list[FieldError]:
    errors = [
        FieldError(name, f"One line of printable characters, at most {MAX_NAME}.")
        for name in ("client_name", "software_id", "software_version")
        if (text := getattr(metadata, name)) is not None and not _is_line(text)
    ]
    for name in ("contacts", "default_acr_values"):
        texts = getattr(metadata, name)
        if len(texts) > MAX_TEXTS or not all(text and _is_line(text) for text in texts):
            errors.append(FieldError(name, f"At most {MAX_TEXTS}, each a line of printable characters."))
    return errors


def _is_line(text: str) -> bool:
    return len(text) <= MAX_NAME and text.isprintable()


def _choice_faults(metadata: Metadata) -> list[FieldError]:
    signs = metadata.token_endpoint_auth_method
    auth_algs = {"private_key_jwt": SIGNING_ALGS, "client_secret_jwt": SECRET_ALGS}.get(
        signs, SIGNING_ALGS + SECRET_ALGS
    )
    choices: dict[str, Collection[str]] = {
        **dict.fromkeys((*TOKEN_ALGS, "request_object_signing_alg"), SIGNING_ALGS),
        "application_type": ("native", "web"),
        "assertion_audience": ("endpoint", "issuer"),
        "id_token_encrypted_response_alg": KEY_MANAGEMENT_ALGS,
        "id_token_encrypted_response_enc": CONTENT_ENCRYPTION_ALGS,
        "subject_type": ("pairwise", "public"),
        "token_endpoint_auth_method": AUTH_METHODS,
        "token_endpoint_auth_signing_alg": auth_algs,
    }
    return [
        FieldError(name, "One of " + ", ".join(sorted(choice)) + ".")
        for name, choice in choices.items()
        if (value := getattr(metadata, name)) is not None and value not in choice
    ]


def _key_faults(metadata: Metadata) -> list[FieldError]:
    errors = []
    has_keys = metadata.jwks is not None or metadata.jwks_uri is not None
    if metadata.jwks is not None and metadata.jwks_uri is not None:
        # RFC 7591 section 2
        errors.append(FieldError("jwks_uri", "jwks or jwks_uri, not both."))
    if metadata.token_endpoint_auth_method == "private_key_jwt" and not has_keys:
        errors.append(FieldError("token_endpoint_auth_method", "private_key_jwt needs jwks or jwks_uri."))
    alg, enc = metadata.id_token_encrypted_response_alg, metadata.id_token_encrypted_response_enc
    if alg is not None and not has_keys:
        errors.append(FieldError("id_token_encrypted_response_alg", "Encryption needs jwks or jwks_uri."))
    if enc is not None and alg is None:
        # OpenID Connect Dynamic Registration section 2
        errors.append(FieldError("id_token_encrypted_response_enc", "It needs id_token_encrypted_response_alg."))
    return errors


def _subject_faults(metadata: Metadata) -> list[FieldError]:
    if metadata.subject_type != "pairwise" or metadata.sector_identifier_uri is not None:
        return []
    # OpenID Connect Core section 8.1: the host of the one and only is the sector; a client that sends nobody
    # anywhere is a sector of its own
    hosts = {_host(uri) for uri in metadata.redirect_uris}
    if len(hosts) <= 1 and None not in hosts:
        return []
    return [FieldError("subject_type", "pairwise needs sector_identifier_uri, or redirect_uris of one host.")]


def _exchange_faults(metadata: Metadata) -> list[FieldError]:
    policy = metadata.token_exchange
    if policy is None:
        return []
    if TOKEN_EXCHANGE not in metadata.grant_types:
        return [FieldError("token_exchange", "It needs the grant type token-exchange.")]
    clients = policy.get("clients")
    is_fit = (
        policy.keys() == {"clients", "impersonation", "delegation"}
        and isinstance(clients, list)
        and len(clients) <= MAX_TEXTS
        and all(isinstance(each, str) and (each == "*" or CLIENT_ID.fullmatch(each)) for each in clients)
        and all(isinstance(policy[name], bool) for name in ("impersonation", "delegation"))
    )
    if is_fit:
        return []
    return [FieldError("token_exchange", "clients: a list of ids or *; impersonation, delegation: booleans.")]


def _host(uri: str) -> str | None:
    web = WEB_URI.fullmatch(uri)
    return None if web is None else web[2].lower()


def _origin(uri: str) -> tuple[str, str, int] | None:
    if (web := WEB_URI.fullmatch(uri)) is None:
        return None
    scheme, host, port = web.groups()
    return scheme, host.lower(), int(port or {"http": 80, "https": 443}[scheme])


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True
