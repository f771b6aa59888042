"""What the endpoints of `ENDPOINTS` take and answer, one row each, for the description of the API."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.clients.registry import FIRST_PARTY
from tokenserver.errors import StoreUnavailable, TooManyRequests
from tokenserver.identity import claims
from tokenserver.oauth import errors
from tokenserver.oauth.client_authentication import ASSERTION_TYPE
from tokenserver.oauth.endpoints import ENDPOINTS, path_of
from tokenserver.oauth.errors import OAuthError
from tokenserver.oauth.grants import GRANTS
from tokenserver.oauth.grants.token_exchange import ACCESS_TOKEN
from tokenserver.oauth.scope import KNOWN
from tokenserver.verify import errors as verify
from tokenserver.verify.list_token import TYP
from tokenserver.web.openapi.answers import REQUEST_ID, refusal, success
from tokenserver.web.openapi.described import Described, published
from tokenserver.web.openapi.schemas import Json
from tokenserver.web.request_context import path_template

TAG: Final = "oauth"
FORM: Final = "application/x-www-form-urlencoded"
TEXT: Final[Json] = {"type": "string"}
TEXTS: Final[Json] = {"type": "array", "items": TEXT}
URI: Final[Json] = {"type": "string", "format": "uri"}
TIME: Final[Json] = {"type": "integer", "description": "Seconds since 1970 (RFC 7519 section 2)."}

# The parameters of all forms, each with an example. Empty ones are missing, and unknown ones are ignored
# (RFC 6749 section 3.2).
PARAMETERS: Final[dict[str, tuple[str, str]]] = {
    "actor_token": (
        "An access token of who acts for the subject (RFC 8693); without: the client acts as the subject itself.",
        "eyJ…",
    ),
    "actor_token_type": ("With `actor_token`.", ACCESS_TOKEN),
    "audience": ("As `resource`; may be repeated (RFC 8693).", "http://127.0.0.1:8000"),
    "client_id": ("The client, unless it authenticates by the Authorization header.", FIRST_PARTY),
    "code": ("The authorization code; it is spent.", "ac_…"),
    "code_verifier": ("The verifier of the request's `code_challenge` (RFC 7636).", "v" * 43),
    "client_secret": ("Its secret, when it is registered for `client_secret_post`.", "cs_…"),
    "client_assertion": (
        "A JWT by the client (RFC 7523), when it is registered for one of the `…_jwt` methods.",
        "eyJ…",
    ),
    "client_assertion_type": (f"With it, `{ASSERTION_TYPE}`.", ASSERTION_TYPE),
    "device_code": ("That of this device.", "dc_…"),
    "otp": ("Of a user with a second factor: a code of the app, or a recovery code.", "492039"),
    "password": ("The user's password.", "correct horse 7 battery"),
    "redirect_uri": ("The same as in the authorization request.", "https://app.example/cb"),
    "refresh_token": ("The newest one; it is spent.", "rt_…"),
    "requested_token_type": ("An access token, which is what is issued anyway.", ACCESS_TOKEN),
    "resource": (
        "Of the resources that may be had, the one that the access token is for; may be repeated (RFC 8707).",
        "http://127.0.0.1:8000",
    ),
    "scope": ("Scopes with spaces between them; left out: all that may be had.", "posts:create"),
    "subject_token": ("An access token of who the new token is about (RFC 8693).", "eyJ…"),
    "subject_token_type": ("That of an access token, or of a JWT.", ACCESS_TOKEN),
    "token": ("An access token or a refresh token.", "rt_…"),
    "token_type_hint": ("What kind of token it is; it may be wrong.", "refresh_token"),
    "username": ("User name or e-mail address.", "ann"),
}
CLIENT: Final = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
OPTIONAL: Final = {
    *CLIENT,
    *(
        "actor_token",
        "actor_token_type",
        "audience",
        "code_verifier",
        "otp",
        "redirect_uri",
        "requested_token_type",
    ),
    *("resource", "scope", "token_type_hint"),
}

TOKEN_RESPONSE: Final[Json] = {
    "type": "object",
    "description": "RFC 6749 section 5.1.",
    "required": ["access_token", "token_type", "expires_in", "scope"],
    "properties": {
        "access_token": {"type": "string", "description": "A JWT (RFC 9068)."},
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds."},
        "scope": TEXT,
        "refresh_token": {"type": "string", "description": "When the client may use it."},
        "issued_token_type": {"type": "string", "description": "Of a token exchange (RFC 8693 section 2.2.1)."},
        "id_token": {"type": "string", "description": "When the scope holds `openid`."},
    },
}
INTROSPECTION_RESPONSE: Final[Json] = {
    "type": "object",
    "description": "RFC 7662 section 2.2: what the token says, or `active: false` alone.",
    "required": ["active"],
    "properties": {
        "active": {"type": "boolean"},
        "token_type": {"const": "Bearer"},
        "iss": URI,
        "sub": TEXT,
        "aud": {"oneOf": [TEXT, TEXTS]},
        "client_id": TEXT,
        "scope": TEXT,
        "exp": TIME,
        "iat": TIME,
        "jti": TEXT,
        "sid": TEXT,
        "roles": TEXTS,
        "auth_time": TIME,
        "acr": TEXT,
        "amr": TEXTS,
        "act": {"type": "object", "description": "Who acts for the subject (RFC 8693 section 4.1)."},
    },
}
DEVICE_AUTHORIZATION_RESPONSE: Final[Json] = {
    "type": "object",
    "description": "RFC 8628 section 3.2.",
    "required": [
        "device_code",
        "user_code",
        "verification_uri",
        "verification_uri_complete",
        "expires_in",
        "interval",
    ],
    "properties": {
        "device_code": {"type": "string", "description": "For the token endpoint; never shown."},
        "user_code": {"type": "string", "description": "What the user types on the page."},
        "verification_uri": URI,
        "verification_uri_complete": URI,
        "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds."},
        "interval": {"type": "integer", "minimum": 1, "description": "Seconds between two polls."},
    },
}
OAUTH_ERROR: Final[Json] = {
    "type": "object",
    "description": "RFC 6749 section 5.2, and the id of the request.",
    "required": ["error", "error_description", "request_id"],
    "properties": {"error": TEXT, "error_description": TEXT, "request_id": TEXT},
}
JWKS: Final[Json] = {
    "type": "object",
    "description": "RFC 7517 section 5.",
    "required": ["keys"],
    "properties": {
        "keys": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kty", "kid", "use", "alg"],
                "properties": {"kty": TEXT, "kid": TEXT, "use": {"const": "sig"}, "alg": TEXT},
            },
        }
    },
}
METADATA: Final[Json] = {
    "type": "object",
    "description": "RFC 8414 section 2 and OpenID Connect Discovery 1.0 section 3.",
    "required": ["issuer", "jwks_uri", "token_endpoint", "grant_types_supported", "response_types_supported"],
    "properties": {"issuer": URI},
    "patternProperties": {
        "_(endpoint|uri)$": URI,
        "_values_supported$|_(types|methods)_supported$|^(scopes|claims)_supported$": TEXTS,
        "_parameter_supported$": {"type": "boolean"},
    },
}
USERINFO: Final[Json] = {
    "type": "object",
    "description": "OpenID Connect Core 1.0 section 5.1: what is known, of what the scope asks for.",
    "required": ["sub"],
    "properties": {
        **dict.fromkeys((*claims.NAMES, "sub"), TEXT),
        "email_verified": {"type": "boolean"},
        "phone_number_verified": {"type": "boolean"},
        "updated_at": TIME,
        "address": {"type": "object", "additionalProperties": TEXT},
    },
}
# Members that aren't understood are ignored (RFC 7591 section 2); the others are those of `POST /clients`.
CLIENTS_METADATA: Final[Json] = {
    "type": "object",
    "description": "RFC 7591 section 2, OpenID Connect Dynamic Client Registration 1.0 section 2.",
    "properties": {"client_name": TEXT, "redirect_uris": TEXTS, "grant_types": TEXTS, "response_types": TEXTS},
}
REGISTERED_BY_ITSELF: Final[Json] = {
    "type": "object",
    "description": "RFC 7591 section 3.2.1, RFC 7592 section 3.",
    "required": ["client_id", "registration_access_token", "registration_client_uri"],
    "properties": {
        "client_id": TEXT,
        "client_secret": TEXT,
        "registration_access_token": TEXT,
        "registration_client_uri": URI,
    },
}
REGISTERED: Final[Json] = {
    "client_id": "app",
    "client_secret": "cs_…",
    "client_secret_expires_at": 0,
    "redirect_uris": ["https://app.example/cb"],
    "registration_access_token": "rat_…",
    "registration_client_uri": "https://id.example/oauth/register/app",
}
SCHEMAS: Final = {
    "ClientsMetadata": CLIENTS_METADATA,
    "RegisteredByItself": REGISTERED_BY_ITSELF,
    "UserInfo": USERINFO,
    "TokenResponse": TOKEN_RESPONSE,
    "IntrospectionResponse": INTROSPECTION_RESPONSE,
    "DeviceAuthorizationResponse": DEVICE_AUTHORIZATION_RESPONSE,
    "OAuthError": OAUTH_ERROR,
    "JWKSet": JWKS,
    "ServerMetadata": METADATA,
}
TOKEN: Final[Json] = {
    "access_token": "eyJ…",
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "posts:create",
    "refresh_token": "rt_…",
}
# What is no refusal by the protocol (`oauth.errors.WORDS`).
WEAK_ETAG: Final[Json] = {
    "description": "The version of what it says (RFC 9110 section 8.8.3), by whatever key it is signed.",
    "required": True,
    "schema": {"type": "string", "pattern": '^W/"[0-9a-f]+"$'},
    "example": 'W/"9f86d081884c7d659a2feaa0c55ad015"',
}
SENTENCES: Final = {429: TooManyRequests.public, 503: StoreUnavailable.public}


def _form(
    summary: str,
    forms: Mapping[str, Sequence[str]],
    answer: Json,
    example: Json,
    refusals: Sequence[type[OAuthError]],
    *,
    is_limited: bool = False,
    choice: str | None = None,
    confidential: Collection[str] = (),
) -> Json:
    """An endpoint where a client authenticates and posts a form. `forms`: the parameters of each kind of request,
    which the parameter `choice` names; `confidential`: those that need a client's secret."""
    by_status: dict[int, dict[str, str]] = {}
    for kind in refusals:
        by_status.setdefault(kind.status, {})[kind.error] = kind.description
    for status in (429, 503) if is_limited else (503,):
        by_status[status] = {errors.WORDS[status]: SENTENCES[status]}
    return {
        "summary": summary,
        "security": [{"clientBasic": []}, {}],
        "requestBody": {
            "required": True,
            "content": {FORM: {"schema": _shape(forms, choice), "examples": _filled(forms, choice, confidential)}},
        },
        "responses": {
            "200": success(200, answer, example),
            **{str(status): _refusal(status, by_status[status]) for status in sorted(by_status)},
        },
    }


def _shape(forms: Mapping[str, Sequence[str]], choice: str | None) -> Json:
    known = sorted({name for names in forms.values() for name in names})
    properties: Json = {choice: {"type": "string", "enum": list(forms)}} if choice else {}
    for name in (*known, *CLIENT):
        properties[name] = {"type": "string", "description": PARAMETERS[name][0]}
    shape: Json = {"type": "object", "properties": properties}
    kinds = [
        {
            "required": [*([choice] if choice else []), *(name for name in names if name not in OPTIONAL)],
            **({"properties": {choice: {"const": kind}}} if choice else {}),
        }
        for kind, names in forms.items()
    ]
    return shape | (kinds[0] if len(kinds) == 1 else {"oneOf": kinds})


def _filled(forms: Mapping[str, Sequence[str]], choice: str | None, confidential: Collection[str]) -> Json:
    filled: Json = {}
    for kind, names in forms.items():
        value = ({choice: kind} if choice else {}) | {name: PARAMETERS[name][1] for name in names}
        client = {"client_id": "backend", "client_secret": "cs_…"} if kind in confidential else {}
        filled[kind] = {"value": value | (client or {"client_id": FIRST_PARTY})}
    return filled


def _refusal(status: int, sentences: Mapping[str, str]) -> Json:
    narrowed = {"properties": {"error": {"enum": list(sentences)}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/OAuthError"}, narrowed]}
    return refusal(
        status,
        list(sentences),
        schema,
        "application/json",
        lambda word: {"error": word, "error_description": sentences[word], "request_id": REQUEST_ID},
    )


def _userinfo(summary: str, *, is_post: bool) -> Json:
    """A protected resource (RFC 6750), which may be asked by a form too."""
    kinds = (verify.InvalidRequest, verify.MissingCredentials, verify.InvalidToken, verify.InsufficientScope)
    by_status: dict[int, dict[str, str]] = {503: {errors.WORDS[503]: SENTENCES[503]}}
    for kind in kinds:
        by_status.setdefault(kind.status, {})[kind.error or "authentication_required"] = kind.description
    if is_post:
        by_status[413] = {errors.BodyTooLarge.error: errors.BodyTooLarge.description}
    ok = success(200, _component("UserInfo"), {"sub": "5f0c2ed6-8d1b-4b0c-9c53-0e3f4f2a7d11", "name": "Ann"})
    # Of a client that registered userinfo_signed_response_alg.
    ok["content"]["application/jwt"] = {"schema": TEXT, "example": "eyJ…"}
    token: Json = {"type": "object", "properties": {"access_token": TEXT}}
    body: Json = {"requestBody": {"content": {FORM: {"schema": token, "example": {}}}}} if is_post else {}
    return {
        "summary": summary,
        "security": [{"bearer": []}, *([{}] if is_post else [])],
        **body,
        "responses": {"200": ok, **{str(s): _refusal(s, by_status[s]) for s in sorted(by_status)}},
    }


def _registration(summary: str, method: str) -> Json:
    """RFC 7591 section 3, RFC 7592 section 2: JSON, and a bearer token."""
    kinds = [verify.InvalidRequest, verify.MissingCredentials, verify.InvalidToken]
    by_status: dict[int, dict[str, str]] = {503: {errors.WORDS[503]: SENTENCES[503]}}
    for kind in kinds:
        by_status.setdefault(kind.status, {})[kind.error or "authentication_required"] = kind.description
    if method in {"post", "put"}:
        for wrong in (errors.InvalidClientMetadata, errors.InvalidRedirectUri, errors.InvalidSoftwareStatement):
            by_status[400][wrong.error] = wrong.description
        by_status |= {413: {"invalid_request": errors.BodyTooLarge.description}}
        by_status |= {415: {"invalid_request": "Send application/json."}}
    if method == "post":
        by_status[403] = {errors.RegistrationClosed.error: errors.RegistrationClosed.description}
        by_status[429] = {errors.WORDS[429]: SENTENCES[429]}
    if method == "delete":
        ok = {"204": success(204, None)}
    else:
        status = 201 if method == "post" else 200
        ok = {str(status): success(status, _component("RegisteredByItself"), REGISTERED)}
    example: Json = {"redirect_uris": ["https://app.example/cb"], "client_name": "An app"}
    if method == "put":
        example |= {"client_id": "app"}
    content = {"application/json": {"schema": _component("ClientsMetadata"), "example": example}}
    body: Json = {"requestBody": {"required": True, "content": content}} if method in {"post", "put"} else {}
    named = {"name": "client_id", "in": "path", "required": True, "schema": TEXT, "example": "app"}
    return {
        "summary": summary,
        "security": [{"bearer": []}],
        **({} if method == "post" else {"parameters": [named]}),
        **body,
        "responses": {**ok, **{str(s): _refusal(s, by_status[s]) for s in sorted(by_status)}},
    }


PREFER: Final[Json] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "With `If-None-Match`, how many seconds the answer may take, 10 at most, if something new comes "
    "meanwhile (RFC 7240 section 4.3).",
    "schema": {"type": "string"},
    "example": "wait=10",
}
IF_NONE_MATCH: Final[Json] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of the list at hand: 304 while it is the newest (RFC 9110 section 13.1.2).",
    "schema": {"type": "string"},
    "example": 'W/"9f86d081884c7d659a2feaa0c55ad015"',
}
PREFERENCE_APPLIED: Final[Json] = {
    "description": "That the request waited, or would have, had there been nothing new (RFC 7240 section 3).",
    "required": False,
    "schema": {"type": "string"},
    "example": "wait=10",
}


def _revocation_list() -> Json:
    operation = published("Read what was revoked, for services that verify tokens by themselves", TEXT, "eyJ…")
    answers: dict[str, Json] = operation["responses"]
    answers["200"]["content"] = {f"application/{TYP}": {"schema": TEXT, "example": "eyJ…"}}
    for answer in answers.values():
        answer["headers"] |= {"ETag": WEAK_ETAG, "Preference-Applied": PREFERENCE_APPLIED}
    operation["parameters"] = [IF_NONE_MATCH, PREFER]
    return operation | {"responses": answers | {"503": _refusal(503, {errors.WORDS[503]: SENTENCES[503]})}}


def _component(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


ANY_FORM: Final = (errors.InvalidRequest, errors.InvalidClient, errors.BodyTooLarge)
# By the endpoint's first path; then by method.
DESCRIPTIONS: Final[dict[str, dict[str, Json]]] = {
    "/oauth/token": {
        "post": _form(
            "Get tokens (RFC 6749 section 3.2)",
            {grant_type: sorted(grant.parameters) for grant_type, grant in GRANTS.items()},
            _component("TokenResponse"),
            TOKEN,
            (
                *ANY_FORM,
                errors.InvalidGrant,
                errors.InvalidScope,
                errors.InvalidTarget,
                errors.UnauthorizedClient,
                errors.UnsupportedGrantType,
                errors.AuthorizationPending,
                errors.SlowDown,
                errors.AccessDenied,
                errors.ExpiredToken,
            ),
            is_limited=True,
            choice="grant_type",
            confidential=[grant_type for grant_type, grant in GRANTS.items() if grant.confidential],
        )
    },
    "/oauth/introspect": {
        "post": _form(
            "Ask what a token is good for (RFC 7662)",
            {"token": ("token", "token_type_hint")},
            _component("IntrospectionResponse"),
            {"active": False},
            ANY_FORM,
            confidential=["token"],
        )
    },
    "/oauth/revoke": {
        "post": _form(
            "Revoke a token (RFC 7009)",
            {"token": ("token", "token_type_hint")},
            {"type": "object"},
            {},
            (*ANY_FORM, errors.InvalidGrant),
        )
    },
    "/oauth/device_authorization": {
        "post": _form(
            "Begin on a device without a browser (RFC 8628 section 3.1)",
            {"device": ("scope", "resource")},
            _component("DeviceAuthorizationResponse"),
            {
                "device_code": "dc_…",
                "user_code": "WDJB-MJHT",
                "verification_uri": "https://id.example/device",
                "verification_uri_complete": "https://id.example/device?user_code=WDJB-MJHT",
                "expires_in": 600,
                "interval": 5,
            },
            (*ANY_FORM, errors.InvalidScope, errors.InvalidTarget, errors.UnauthorizedClient),
            is_limited=True,
        )
    },
    "/oauth/userinfo": {
        "get": _userinfo("Read about the user (OpenID Connect Core 1.0 section 5.3)", is_post=False),
        "post": _userinfo("Read about the user, with the token in a form", is_post=True),
    },
    "/oauth/register": {"post": _registration("Register a client (RFC 7591)", "post")},
    "/oauth/register/<client_id>": {
        "get": _registration("Read one's own registration (RFC 7592)", "get"),
        "put": _registration("Replace one's own metadata (RFC 7592)", "put"),
        "delete": _registration("Delete oneself (RFC 7592)", "delete"),
    },
    "/.well-known/jwks.json": {
        "get": published(
            "Read the public keys that verify tokens (RFC 7517)",
            _component("JWKSet"),
            {"keys": [{"kty": "RSA", "kid": "NzbLsXh8…", "use": "sig", "alg": "RS256", "n": "0vx7…", "e": "AQAB"}]},
        )
    },
    "/oauth/revocation_list": {"get": _revocation_list()},
    "/.well-known/openid-configuration": {
        "get": published(
            "Read what this server can do (RFC 8414)",
            _component("ServerMetadata"),
            {
                "issuer": "https://id.example",
                "token_endpoint": "https://id.example/oauth/token",
                "jwks_uri": "https://id.example/.well-known/jwks.json",
                "grant_types_supported": list(GRANTS),
                "response_types_supported": [],
            },
        )
    },
}


def described(issuer: str) -> Described:
    operations = {
        (path_template(path), method): {"tags": [TAG]} | operation
        for endpoint in ENDPOINTS
        for path in endpoint.paths
        for method, operation in DESCRIPTIONS.get(endpoint.paths[0], {}).items()
    }
    return Described(operations, SCHEMAS, _security_schemes(issuer))


def _security_schemes(issuer: str) -> dict[str, Json]:
    token_url = issuer + path_of("token_endpoint")
    # Permissions have a description; the standard scopes have OpenID Connect Core 1.0 section 5.4.
    scopes = {name: PERMISSIONS.get(name, "OpenID Connect") for name in sorted(KNOWN)}
    flow = {"tokenUrl": token_url, "scopes": scopes}
    return {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "oauth2": {
            "type": "oauth2",
            "description": f"The client `{FIRST_PARTY}` has no secret: name it in the body of the request.",
            "flows": {"password": flow | {"refreshUrl": token_url}, "clientCredentials": flow},
        },
        "clientBasic": {
            "type": "http",
            "scheme": "basic",
            "description": "`client_id` and `client_secret` (RFC 6749 section 2.3.1), unless they are in the form.",
        },
    }
