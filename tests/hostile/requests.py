"""Requests that broke servers of this kind, each with the one right answer: data, read by `test_section0`.

Every row must be answered by this status and word, in the uniform shape of an error, without any effect: no user,
no session and no token comes of it, and what is in `never` must not be found in the answer. The test fills in the
placeholders: tokens, ids, cursors, and the secrets of the clients "poster" (Basic) and "former" (in the body). What
only REST endpoints have is in `rest_requests`.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
KIB_64 = 64 * 1024
BEARER = {"Authorization": "Bearer {access}"}
# So that the attack comes as far as the view.
ADMIN = {"Authorization": "Bearer {admin_access}"}
BASIC = {"Authorization": "Basic {basic}"}


@dataclass(frozen=True)
class Hostile:
    """`status`: what is right; `word`: `error` or `code` of the answer, "" for a success that must do no harm.

    `environ`: what can't be sent through a well-behaved client; `chunked`: the length is not announced;
    `page`: it is HTML.
    """

    what: str
    path: str
    status: int
    word: str
    method: str = "POST"
    body: str | bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    never: tuple[str, ...] = ()
    page: bool = False


# One good request to each endpoint that has a body; most rows below spoil one of them.

OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
RSA = {"kty": "RSA", "n": "_" * 341 + "w", "e": "AQAB"}
CLIENT: dict[str, Any] = {
    "client_name": "Mallory's",
    "redirect_uris": ["https://mallory.example/cb"],
    "grant_types": ["client_credentials"],
    "response_types": [],
    "scope": "posts:create users:read",
    "token_endpoint_auth_method": "client_secret_basic",
    "jwks": {"keys": [OKP, EC, RSA]},
    "audience": ["https://mallory.example"],
    "first_party": True,
}
JSON_REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/auth/register"): {
        "username": "mallory",
        "email": "mallory@example.org",
        "password": "correct horse 7 battery",
        "name": "Mallory",
    },
    ("POST", "/auth/login"): {"login": "ann", "password": "correct horse 7 battery"},
    ("POST", "/auth/refresh"): {"refresh_token": "{refresh}"},
    ("PUT", "/users/me"): {
        "username": "mallory",
        "email": "mallory@example.org",
        "name": "Mallory",
        "password": "another horse 8 battery",
        "current_password": "correct horse 7 battery",
    },
    ("POST", "/roles"): {"name": "mallory", "description": "Mallory's", "permissions": ["logs:read"]},
    ("PUT", "/roles/premium/permissions"): {"permissions": ["logs:read"]},
    ("PUT", "/users/{ann}/roles"): {"roles": ["premium"]},
    ("PUT", "/users/{ann}/status"): {"status": "disabled"},
    ("POST", "/posts"): {"title": "Mallory's", "body": "x", "public": True},
    ("POST", "/clients"): CLIENT | {"client_id": "mallory"},
    ("PUT", "/clients/poster"): CLIENT,
}
FORMER = {"client_id": "former", "client_secret": "{former_secret}"}
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
PASSWORD_GRANT = {
    "grant_type": "password",
    "client_id": "first-party",
    "username": "ann",
    "password": "correct horse 7 battery",
    "scope": "posts:create",
}
FORMS: list[tuple[str, dict[str, str]]] = [
    ("/oauth/token", PASSWORD_GRANT),
    ("/oauth/token", {"grant_type": "refresh_token", "refresh_token": "{refresh}", "client_id": "first-party"}),
    ("/oauth/token", {"grant_type": "client_credentials", **FORMER}),
    (
        "/oauth/token",
        {"grant_type": EXCHANGE, "subject_token": "{own}", "subject_token_type": ACCESS_TOKEN, **FORMER},
    ),
    ("/oauth/device_authorization", {"client_id": "tv", "scope": "posts:create"}),
    ("/oauth/introspect", {"token": "{access}", "token_type_hint": "access_token", **FORMER}),
    ("/oauth/revoke", {"token": "{refresh}", "token_type_hint": "refresh_token", "client_id": "first-party"}),
]
LISTED = {
    "/oauth/token": "POST",
    "/oauth/introspect": "POST",
    "/oauth/revoke": "POST",
    "/oauth/device_authorization": "POST",
}
METHODS = {
    **LISTED,
    "/auth/register": "POST",
    "/auth/login": "POST",
    "/auth/refresh": "POST",
    "/auth/logout": "POST",
    "/users/me": "GET, PUT",
    "/users/me/sessions": "GET",
    "/oauth/logout": "GET, POST",
    "/oauth/check_session": "GET",
    "/oauth/revocation_list": "GET",
    "/.well-known/jwks.json": "GET",
    "/.well-known/openid-configuration": "GET",
    "/.well-known/oauth-authorization-server": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/users": "GET",
    "/users/{ann}": "GET",
    "/users/{ann}/roles": "PUT",
    "/users/{ann}/status": "PUT",
    "/users/me/sessions/{ann_session}": "DELETE",
    "/roles": "GET, POST",
    "/roles/spare": "GET, DELETE",
    "/roles/premium/permissions": "PUT",
    "/roles/verify": "GET, DELETE",  # whose DELETE is that of a role of this name
    "/permissions": "GET",
    "/posts": "GET, POST",
    "/posts/{post}": "GET, DELETE",
    "/clients": "GET, POST",
    "/clients/poster": "GET, PUT, DELETE",
    "/clients/poster/secret": "POST",
    "/admin/logs": "GET",
    "/admin/stats": "GET",
    "/admin/explain": "GET",
    "/admin/keys": "GET",
    "/admin/keys/rotate": "POST",
    "/openapi.json": "GET",
    "/docs": "GET",
    "/docs/init.js": "GET",
}


def headers_for(path: str) -> Mapping[str, str]:
    """The token that gets a request to the view."""
    if path.startswith(("/users/me", "/auth/logout")):
        return BEARER
    return {} if path.startswith("/auth/") else ADMIN


def _json(what: str, method: str, path: str, body: str | bytes, status: int, word: str, **more: str) -> Hostile:
    content_type = more.get("content_type", JSON)
    return Hostile(f"{what}: {method} {path}", path, status, word, method, body, content_type, headers_for(path))


def _form(what: str, path: str, body: str | bytes, status: int, word: str, **more: str) -> Hostile:
    headers = {"Authorization": more["authorization"]} if "authorization" in more else {}
    return Hostile(
        f"{what}: {path}",
        path,
        status,
        word,
        "POST",
        body,
        more.get("content_type", FORM),
        headers,
        never=("{secret}",),
    )


def _encoded(form: Mapping[str, str]) -> str:
    """As a form, its placeholders left alone."""
    return "&".join(f"{name}={quote(value, safe='{}')}" for name, value in form.items())


def _basic(credentials: bytes) -> str:
    return "Basic " + b64encode(credentials).decode()


# PostgreSQL refuses NUL, hashes and sockets refuse lone surrogates; SQLite hides both.
BAD_TEXTS = {"a NUL byte": "a\\u0000b", "a lone surrogate": "a\\ud800b", "two lone surrogates": "\\udc00\\ud800"}
BAD_ESCAPES = {
    "a NUL byte": "a%00b",
    "a lone surrogate": "%ED%A0%80",
    "overlong UTF-8": "%C0%80",
    "not UTF-8": "%FF",
}

IN_JSON = [
    _json(
        f"{what} in {name}",
        method,
        path,
        json.dumps(good | {name: "\x01"}).replace("\\u0001", text),
        400,
        "malformed_request",
    )
    for what, text in BAD_TEXTS.items()
    for (method, path), good in JSON_REQUESTS.items()
    for name in good
]
IN_JSON += [
    _json(f"{what} in a name", method, path, f'{{"{text}": 1}}', 400, "malformed_request")
    for what, text in BAD_TEXTS.items()
    for method, path in JSON_REQUESTS
]

IN_FORMS = [
    _form(
        f"{what} in {name} of {form.get('grant_type', path)}",
        path,
        _encoded(form | {name: "{bad}"}).replace("{bad}", text),
        400,
        "invalid_request",
    )
    for what, text in BAD_ESCAPES.items()
    for path, form in FORMS
    for name in form
]
IN_FORMS += [
    _form(
        f"{name} twice, in {form.get('grant_type', path)}",
        path,
        f"{_encoded(form)}&{name}={again}",
        400,
        "invalid_request",
    )
    for path, form in FORMS
    for name in form
    for again in ("", "other")
]

# Bodies that are not what they say.
NOT_OBJECTS = {
    "a list": "[]",
    "null": "null",
    "a text": '"x"',
    "a number": "1",
    "true": "true",
    "a list of objects": "[{}]",
    "nothing": "",
    "half an object": '{"login": ',
    "two objects": "{}{}",
    "single quotes": "{'a': 1}",
    "a huge number": '{"login": ' + "9" * 5000 + "}",
    "Latin-1": b'{"login": "\xe9"}',
    "a surrogate in UTF-8": b'{"login": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"login": "\xc0\x80"}',
    "a NUL byte in front": "\0{}",
    "a NUL byte behind": "{}\0",
    "a line break in a text": '{"login": "a\nb"}',
    "a wrong escape": '{"login": "\\x41"}',
    "a comma too many": '{"login": "ann",}',
    "a comment": '{"login": "ann" /* Ann */}',
    "a leading zero": '{"login": 01}',
    "deeper than the stack": "[" * 30_000 + "]" * 30_000,
}
BODIES = [
    _json(what, method, path, body, 400, "malformed_request")
    for what, body in NOT_OBJECTS.items()
    for method, path in JSON_REQUESTS
]
BODIES += [
    _json("100,000 deep", method, path, "[" * 100_000 + "]" * 100_000, 413, "body_too_large")
    for method, path in JSON_REQUESTS
]
# RFC 8259 section 4: which of two counts, each reader decides for itself.
BODIES += [
    _json(f"{again} again", method, path, f"{json.dumps(good)[:-1]}, {again}: {value}}}", 400, "malformed_request")
    for (method, path), good in JSON_REQUESTS.items()
    for name in good
    for again, value in (
        (json.dumps(name), json.dumps(good[name])),
        (f'"\\u{ord(name[0]):04x}{name[1:]}"', "null"),
    )
]
# Flat enough for the parser, too deep for a careless walk over what it made.
BODIES += [
    _json(f"a value {depth} deep", method, path, '{"a":' + "[" * depth + "]" * depth + "}", status, word)
    for method, path in JSON_REQUESTS
    for depth, status, word in (
        (50, 422, "validation_failed"),
        (65, 400, "malformed_request"),
        (700, 400, "malformed_request"),
    )
]
BODIES += [
    _json(what, method, path, body, 422, "validation_failed")
    for what, body in {
        "no fields": "{}",
        "a number as a field": '{"username": 1, "login": 1, "refresh_token": 1, "name": 1}',
        "a list as a field": '{"username": [], "login": [], "refresh_token": [], "name": []}',
        "an object as a field": '{"username": {}, "login": {}, "refresh_token": {}, "name": {}}',
        "NaN as a field": '{"username": NaN, "login": NaN, "refresh_token": NaN, "name": NaN}',
        "5,000 fields": json.dumps(dict.fromkeys(map(str, range(5000)), 1)),
        "prototype pollution": '{"__proto__": {"admin": true}, "constructor": 1}',
    }.items()
    for method, path in JSON_REQUESTS
    if (what, path) != ("no fields", "/users/me")  # which changes nothing, rightly
]
WRONG_TYPES: dict[type, tuple[str, ...]] = {
    str: ("null", "1", "1.5", "true", "[]", '["x"]', "{}", "-Infinity"),
    list: ("null", '"user"', "1", "true", "{}", "[null]", "[1]", "[[]]", "[{}]", "[NaN]"),
    bool: ("null", '"true"', '"false"', '""', "1", "0", "[]", "{}"),
    dict: ('"x"', "1", "true", "[]"),
}
BODIES += [
    _json(
        f"{value} as {name}",
        method,
        path,
        json.dumps(good | {name: "\x01"}).replace('"\\u0001"', value),
        422,
        "validation_failed",
    )
    for (method, path), good in JSON_REQUESTS.items()
    for name in good
    for value in WRONG_TYPES[type(good[name])]
    if (path, name, value) != ("/users/me", "name", "null")  # which takes the name away, rightly
]
# OWASP API3:2023: members that exist, but are not the caller's to set.
NOT_YOURS = {
    "id": "00000000-0000-4000-8000-000000000000",
    "user_id": "{admin}",
    "sub": "{admin}",
    "author": "{admin}",
    "author_id": "{admin}",
    "owner": "{admin}",
    "username_key": "admin",
    "name_key": "admin",
    "password_hash": "x",
    "client_secret": "chosen",
    "client_secret_digest": "x",
    "client_secret_expires_at": 0,
    "client_id_issued_at": 0,
    "jwks_uri": "http://127.0.0.1/jwks",
    "status": "active",
    "roles": ["admin"],
    "role": "admin",
    "permissions": ["roles:write"],
    "is_admin": True,
    "admin": True,
    "builtin": True,
    "first_party": True,
    "user_count": 0,
    "granted_by": "registration",
    "created_at": "2020-01-01T00:00:00Z",
    "updated_at": "2020-01-01T00:00:00Z",
    "dry_run": True,
    "access_token": "{admin_access}",
    "_method": "DELETE",
    "": "x",
    "x" * 5000: "x",
}
BODIES += [
    _json(f"{name[:40]!r} too", method, path, json.dumps(good | {name: value}), 422, "validation_failed")
    for (method, path), good in JSON_REQUESTS.items()
    for name, value in NOT_YOURS.items()
    if name not in good
]
BODIES += [
    _json(
        f"{content_type} as content type",
        method,
        path,
        json.dumps(good),
        415,
        "unsupported_media_type",
        content_type=content_type,
    )
    for (method, path), good in JSON_REQUESTS.items()
    for content_type in (
        FORM,
        "text/plain",
        "text/json",
        "application/jsonp",
        "application/xml",
        "multipart/form-data; boundary=x",
        "",
        "/",
    )
]
BODIES += [
    _form(
        f"{content_type!r} as content type", path, _encoded(form), 400, "invalid_request", content_type=content_type
    )
    for path, form in FORMS
    for content_type in (
        JSON,
        "text/plain",
        "multipart/form-data; boundary=x",
        "",
        "application/x-www-form-urlencoded2",
    )
]
BODIES += [
    _form(what, path, body, 400, "invalid_request")
    for path in LISTED
    for what, body in {
        "no equals sign": "grant_type",
        "raw bytes": b"grant_type=\xff\xfe",
        "a JSON object": '{"grant_type": "password"}',
        "1,000 parameters": "&".join(f"p{i}=x" for i in range(1000)),
        "1,000 nameless parameters": "&".join(["=x"] * 1000),
    }.items()
]

# Size: refused before anything is read, parsed or hashed.
PARTS = "".join(f'--x\r\nContent-Disposition: form-data; name="p{i}"\r\n\r\nx\r\n' for i in range(10_000)) + "--x--"
SIZES = [
    Hostile(
        f"{what}: {path}",
        path,
        413,
        "body_too_large",
        method,
        body,
        JSON,
        headers_for(path),
        chunked=chunked,
    )
    for method, path in JSON_REQUESTS
    for what, body, chunked in (
        ("a password one byte too large for a body", b'{"password": "' + b"x" * (KIB_64 - 15) + b'"}', False),
        ("2 MiB of body", b"x" * (2 * 1024 * 1024), False),
        ("2 MiB of body in chunks", b"x" * (2 * 1024 * 1024), True),
        ("spaces without end, in chunks", b"{}" + b" " * KIB_64, True),
    )
]
SIZES += [
    Hostile(f"{what}: {path}", path, 413, "invalid_request", "POST", body, content_type, BASIC, chunked=chunked)
    for path in LISTED
    for what, body, content_type, chunked in (
        ("2 MiB of form", b"grant_type=" + b"x" * (2 * 1024 * 1024), FORM, False),
        ("2 MiB of form in chunks", b"grant_type=" + b"x" * (2 * 1024 * 1024), FORM, True),
        ("a tail behind the limit, in chunks", b"token=x&a=" + b"x" * KIB_64 + b"&token=y", FORM, True),
        ("10,000 parts", PARTS, "multipart/form-data; boundary=x", False),
    )
]

# RFC 8259 section 8.1: UTF-8, without a byte order mark. What is read in front of the server must be what it reads.
ENCODINGS = [
    _json(encoding, method, path, json.dumps(good).encode(encoding), 400, "malformed_request")
    for (method, path), good in JSON_REQUESTS.items()
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be")
]

# Credentials of clients.
BASICS = {
    "without anything": "Basic",
    "without credentials": "Basic ",
    "that is not base64": "Basic %%%",
    "of base64url": "Basic YTpi_-==",
    "without padding": "Basic YTpiYw",
    "with a space inside": "Basic YTpi Yw==",
    "with a line break inside": "Basic YTpi\tYw==",
    "without a colon": _basic(b"poster"),
    "of two empty halves": _basic(b":"),
    "without a secret": _basic(b"poster:"),
    "without an id": _basic(b":secret"),
    "that is not UTF-8": _basic(b"poster:\xff\xfe"),
    "whose id is not UTF-8": _basic(b"\xff:secret"),
    "escaped into what is not UTF-8": _basic(b"poster:%FF"),
    "escaped into a lone surrogate": _basic(b"poster:%ED%A0%80"),
    "with a non-ASCII secret": _basic("poster:gehëim€".encode()),
    "with a NUL byte in the id": _basic(b"poster\0:secret"),
    "with a NUL byte in the secret": _basic(b"poster:\0"),
    "of an unknown client": _basic(b"nobody:secret"),
    "of an id with SQL in it": _basic(b"' OR 1=1 --:secret"),
    "of a public client": _basic(b"first-party:"),
    "with a very long secret": _basic(b"poster:" + b"x" * 20_000),
    "under another scheme": "Bearer {access}",
    "under no scheme": "cG9zdGVyOng=",
    "of non-ASCII": "Basic \xff\xfe",
}
CREDENTIALS = [
    Hostile(
        f"Basic {what}: {path}",
        path,
        401,
        "invalid_client",
        body="grant_type=client_credentials&token={access}",
        content_type=FORM,
        environ={"HTTP_AUTHORIZATION": authorization},
    )
    for what, authorization in BASICS.items()
    for path in LISTED
]
CREDENTIALS += [
    _form(what, path, f"grant_type=client_credentials&token={{access}}&{body}", 401, "invalid_client")
    for path in LISTED
    for what, body in {
        "no credentials": "",
        "a non-ASCII secret": "client_id=poster&client_secret=geh%C3%ABim",
        "an unknown client": "client_id=nobody&client_secret=secret",
        "an unknown public client": "client_id=nobody",
        "a confidential client without its secret": "client_id=poster",
        "a confidential client with an empty secret": "client_id=poster&client_secret=",
        "a secret alone": "client_secret={secret}",
        "a public client with a secret": "client_id=first-party&client_secret=x",
        "a client id of 60 KB": "client_id=" + "x" * 60_000,
    }.items()
    for body in [body or "a=b"]
]
CREDENTIALS += [
    _form(
        what,
        path,
        f"grant_type=client_credentials&token={{access}}&{body}",
        400,
        "invalid_request",
        authorization="Basic {basic}",
    )
    for path in LISTED
    for what, body in {
        "Basic and a secret in the body": "client_secret={secret}",
        "Basic and both in the body": "client_id=poster&client_secret={secret}",
        "Basic of one client and the id of another": "client_id=first-party",
    }.items()
]

# Where parameters don't belong.
PLACES = [
    Hostile(
        f"{query} in the query: {path}", f"{path}?{query}", 400, "invalid_request", "POST", _encoded(form), FORM
    )
    for path, form in FORMS
    for query in ("grant_type=password", "client_secret=x", "scope=", "anything", "%00")
]
PLACES += [
    Hostile(f"?{query} {method} {path}", f"{path}?{query}", 400, "invalid_request", method, headers=headers)
    for method, path in (
        ("GET", "/users/me"),
        ("PUT", "/users/me"),
        ("GET", "/users/me/sessions"),
        ("POST", "/auth/logout"),
    )
    for query in ("access_token={access}", "access%5Ftoken={access}", "access_token=")
    for headers in ({}, BEARER)
]
BEARERS = {
    "two tokens": "Bearer {access} {access}",
    "two tokens and a comma": "Bearer {access}, Bearer {access}",
    "nothing": "Bearer",
    "a space": "Bearer  ",
    "a quoted token": 'Bearer "{access}"',
    "a NUL byte": "Bearer {access}\0",
    "a line break": "Bearer {access}\r\nX-Evil: 1",
    "non-ASCII": "Bearer \xff\xfe",
}
PLACES += [
    Hostile(f"Bearer {what}", "/users/me", 400, "invalid_request", "GET", environ={"HTTP_AUTHORIZATION": value})
    for what, value in BEARERS.items()
]
PLACES += [
    Hostile(
        "a token in a form",
        "/users/me",
        400,
        "invalid_request",
        "PUT",
        "access_token={access}",
        FORM,
    )
]

# Scopes (RFC 6749 section 3.3).
SCOPES = {
    "unknown": "nope",
    "known and unknown": "posts:create+nope",
    "a space": "+",
    "two spaces": "posts:create++users:read",
    "a leading space": "+posts:create",
    "a tab": "posts:create%09users:read",
    "a quote": "%22",
    "a backslash": "%5C",
    "non-ASCII": "%C3%A9",
    "a wildcard": "*",
    "another case": "Posts:Create",
    "60 KB": "x+" * 30_000 + "x",
}
SCOPED = [
    _form(f"scope {what}", "/oauth/token", f"{_encoded(form)}&scope={scope}", 400, "invalid_scope")
    for what, scope in SCOPES.items()
    for form in (
        {"grant_type": "client_credentials", **FORMER},
        {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": "{refresh}"},
        {"grant_type": "password", "client_id": "first-party", "username": "ann", "password": "x"},
    )
]

# Paths.
PATHS = [
    Hostile(
        f"{path!r}",
        "/",
        404,
        "not_found",
        environ={"PATH_INFO": path, "HTTP_HOST": "evil.example"},
        never=("evil.example", "<", "\nX-Evil"),
    )
    for path in (
        "",
        "/",
        "/auth//login",
        "/auth/login/",
        "/auth/\0",
        "/auth/\r\nX-Evil: 1",
        "/\xff",
        "/%2e%2e/etc/passwd",
        "/oauth",
        "/.well-known",
    )
]
PATHS += [
    Hostile(
        f"{path!r}",
        "/",
        404,
        "invalid_request",
        environ={"PATH_INFO": path, "HTTP_HOST": "evil.example"},
        never=("evil.example", "\nX-Evil"),
    )
    for path in ("/oauth//token", "/oauth/token/", "/oauth/\0", "/oauth/\r\nX-Evil: 1", "/oauth/../oauth/token")
]

# Methods: TRACE would echo the Authorization header.
WRONG_METHODS = [
    Hostile(
        f"{method} {path}",
        path,
        405,
        "invalid_request" if path.startswith("/oauth/") and path != "/oauth/logout" else "method_not_allowed",
        method,
        headers=BEARER,
        never=("{access}",),
        page=path == "/oauth/logout",
    )
    for path, allowed in METHODS.items()
    for method in ("TRACE", "CONNECT", "PROPFIND", "FOO", "PATCH", "DELETE", "GET", "POST")
    if method not in allowed
]

# Headers.
HEADERS = [
    Hostile(
        f"{name}: {value!r}",
        "/auth/login",
        422,
        "validation_failed",
        body="{}",
        content_type=JSON,
        environ={"HTTP_" + name.upper().replace("-", "_"): value},
        never=("X-Evil", "evil.example", "\x1b", value),
    )
    for name, value in (
        ("X-Request-ID", "abcdefgh\r\nX-Evil: 1"),
        ("X-Request-ID", "abcdefgh\nX-Evil: 1"),
        ("X-Request-ID", "abcdefgh\0"),
        ("X-Request-ID", "<script>alert(1)</script>"),
        ("X-Request-ID", "\x1b[31mabcdefgh"),
        ("X-Request-ID", "short"),
        ("X-Request-ID", "x" * 65),
        ("X-Request-ID", "\xff" * 16),
        ("Host", "evil.example"),
        ("Host", "evil.example:99999999"),
        ("Host", "[::1"),
        ("Host", 'evil.example"><b>'),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "host=evil.example"),
        ("Accept", "text/html,evil.example"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Cookie", "session=evil.example"),
    )
]
HEADERS += [
    Hostile(
        f"Content-Length: {value}",
        "/auth/login",
        400,
        "malformed_request",
        body="{}",
        content_type=JSON,
        environ={"CONTENT_LENGTH": value},
    )
    for value in ("x", "-1", "1.5", "100")
]

# Nobody is signed out, and nobody is sent anywhere (OWASP ASVS 10.6.2).
LOGOUTS = [
    Hostile(f"{what}: {method} /oauth/logout", path, 400, "invalid_request", method, body, content_type, page=True)
    for what, query in {
        "a parameter twice": "state=a&state=b",
        "a hint that is an access token": "id_token_hint={access}",
        "a hint that is nothing": "id_token_hint=x",
        "somebody else's place": "post_logout_redirect_uri=https://evil.example",
        "somebody else's place, by a client": "client_id=poster&post_logout_redirect_uri=https://evil.example",
        "nobody's client": "client_id=nope",
        **{f"{what} in the state": f"state={text}" for what, text in BAD_ESCAPES.items()},
        **{f"{what} in client_id": f"client_id={text}" for what, text in BAD_ESCAPES.items()},
        "1,000 parameters": "&".join(f"p{i}=x" for i in range(1000)),
    }.items()
    for method, path, body, content_type in (
        ("GET", f"/oauth/logout?{query}", "", None),
        ("POST", "/oauth/logout", f"confirmed=x&{query}", FORM),
    )
]
LOGOUTS += [
    Hostile(
        f"{name}: GET /oauth/check_session",
        "/oauth/check_session?cookie=evil.example",
        200,
        "",
        "GET",
        environ={name: "evil.example"},
        never=("evil.example",),
        page=True,
    )
    for name in ("HTTP_HOST", "HTTP_X_FORWARDED_HOST", "HTTP_ORIGIN", "HTTP_COOKIE")
]

REQUESTS = {
    "logout": LOGOUTS,
    "bodies": IN_JSON + IN_FORMS + BODIES + SIZES + ENCODINGS,
    "credentials, places, methods and headers": CREDENTIALS + SCOPED + PLACES + PATHS + WRONG_METHODS + HEADERS,
}
