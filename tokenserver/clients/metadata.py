"""What a client's metadata may be (RFC 7591 section 2)."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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
# OpenID Connect Core sections 5.4 and 11: they speak of a user. Every other scope is a permission.
STANDARD_SCOPES: Final = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})

CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")
# Who did something, in the log, is a user's id, a client's, or one of these words.
RESERVED_IDS: Final = frozenset({"cli", "registration"})
MAX_NAME: Final = 255
# RFC 7519 section 4.1.3: a StringOrURI. The list is kept with its members joined by spaces.
AUDIENCE: Final = re.compile(r"[\x21-\x7E]{1,255}")
MAX_AUDIENCES: Final = 20

MAX_REDIRECT_URIS: Final = 20
MAX_URI: Final = 2000
# RFC 3986 without what has no place in a redirect URI: user information and a fragment (RFC 6749 section 3.1.2).
_REST: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]"
WEB_URI: Final = re.compile(rf"(https?)://({_HOST})(?::([0-9]{{1,5}}))?(?:[/?]{_REST})?")
# RFC 8252 section 7.1: a domain name of the app's maker, reversed. The dot keeps javascript: and the like away.
APP_URI: Final = re.compile(rf"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/(?!/[^/?]*@){_REST}")
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


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


def faults(metadata: Metadata, known_scopes: frozenset[str]) -> list[FieldError]:
    """All but those of `jwks`."""
    errors = [*_grant_faults(metadata), *_redirect_faults(metadata)]
    if len(metadata.client_name) > MAX_NAME or not metadata.client_name.isprintable():
        errors.append(FieldError("client_name", f"One line of printable characters, at most {MAX_NAME}."))
    if not set(metadata.scope) <= known_scopes:
        errors.append(FieldError("scope", "Holds a scope that this server doesn't know."))
    if metadata.token_endpoint_auth_method not in AUTH_METHODS:
        errors.append(FieldError("token_endpoint_auth_method", "One of " + ", ".join(sorted(AUTH_METHODS)) + "."))
    if not all(AUDIENCE.fullmatch(each) for each in metadata.audience):
        errors.append(FieldError("audience", "Identifiers of resources, without spaces."))
    if len(metadata.audience) > MAX_AUDIENCES or len(set(metadata.audience)) < len(metadata.audience):
        errors.append(FieldError("audience", f"Each once, at most {MAX_AUDIENCES}."))
    return errors


def _grant_faults(metadata: Metadata) -> list[FieldError]:
    errors = []
    grant_types = set(metadata.grant_types)
    if not grant_types or not grant_types <= GRANT_TYPES:
        errors.append(FieldError("grant_types", "One or more of " + ", ".join(sorted(GRANT_TYPES)) + "."))
    if grant_types == {"refresh_token"}:
        errors.append(FieldError("grant_types", "refresh_token needs another grant that issues the first one."))
    if metadata.token_endpoint_auth_method == "none" and "client_credentials" in grant_types:
        # RFC 6749 section 4.4: confidential clients only
        errors.append(FieldError("grant_types", "client_credentials needs a confidential client."))
    needed = [RESPONSE_TYPES.get(each) for each in metadata.response_types]
    if not all(each is not None and each <= grant_types for each in needed):
        errors.append(FieldError("response_types", "Each needs its grant types in grant_types."))
    return errors


def _redirect_faults(metadata: Metadata) -> list[FieldError]:
    uris = metadata.redirect_uris
    if len(uris) > MAX_REDIRECT_URIS or len(set(uris)) < len(uris):
        return [FieldError("redirect_uris", f"Each once, at most {MAX_REDIRECT_URIS}.")]
    is_public = metadata.token_endpoint_auth_method == "none"
    found = ((position, _redirect_fault(uri, is_public=is_public)) for position, uri in enumerate(uris))
    return [FieldError(f"redirect_uris.{position}", fault) for position, fault in found if fault]


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
