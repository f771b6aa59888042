"""Requests that broke servers of this kind, each with the one right answer: data, read by `test_section0`.

Every row must be answered by this status and word, in the uniform shape of an error, without any effect: no user,
no session and no token comes of it, and what is in `never` must not be found in the answer. The test fills in the
placeholders: tokens of a user, and the secrets of the clients "poster" (Basic) and "former" (in the body).
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
KIB_64 = 64 * 1024
BEARER = {"Authorization": "Bearer {access}"}
BASIC = {"Authorization": "Basic {basic}"}


@dataclass(frozen=True)
class Hostile:
    """`status`: what is right; `word`: `error` or `code` of the answer, "" for a success that must do no harm.

    `environ`: what can't be sent through a well-behaved client; `chunked`: the length is not announced.
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


# One good request to each endpoint that has a body; most rows below spoil one of them.

JSON_REQUESTS: dict[tuple[str, str], dict[str, str]] = {
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
}
FORMER = {"client_id": "former", "client_secret": "{former_secret}"}
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
    ("/oauth/introspect", {"token": "{access}", "token_type_hint": "access_token", **FORMER}),
    ("/oauth/revoke", {"token": "{refresh}", "token_type_hint": "refresh_token", "client_id": "first-party"}),
]
LISTED = {"/oauth/token": "POST", "/oauth/introspect": "POST", "/oauth/revoke": "POST"}
METHODS = {
    **LISTED,
    "/auth/register": "POST",
    "/auth/login": "POST",
    "/auth/refresh": "POST",
    "/auth/logout": "POST",
    "/users/me": "GET, PUT",
    "/users/me/sessions": "GET",
    "/.well-known/jwks.json": "GET",
    "/.well-known/openid-configuration": "GET",
    "/.well-known/oauth-authorization-server": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
}


def _json(what: str, method: str, path: str, body: str | bytes, status: int, word: str, **more: str) -> Hostile:
    headers = BEARER if path.startswith("/users") else {}
    return Hostile(
        f"{what}: {method} {path}", path, status, word, method, body, more.get("content_type", JSON), headers
    )


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
# Flat enough for the parser, too deep for a careless walk over what it made.
BODIES += [
    _json(f"a value {depth} deep", method, path, '{"a":' + "[" * depth + "]" * depth + "}", status, word)
    for method, path in JSON_REQUESTS
    for depth, status, word in (
        (50, 422, "validation_failed"),
        (400, 422, "validation_failed"),
        (700, 422, "validation_failed"),
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
        BEARER if path == "/users/me" else {},
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

# Lists and paths.
LISTS = [
    Hostile(f"?{query}", f"/users/me/sessions?{query}", 422, "validation_failed", "GET", headers=BEARER)
    for query in (
        "limit=-1",
        "limit=0",
        "limit=101",
        "limit=1e2",
        "limit=1.0",
        "limit=%2B1",
        "limit=",
        "limit=abc",
        "limit=%00",
        "limit=99999999999999999999",
        "limit=%EF%BC%91",
        "limit=0x10",
        "cursor=",
        "cursor=AAAA",
        "cursor=%00",
        "cursor=%FF",
        "cursor=" + "A" * 5000,
        "cursor=eyJhIjoxfQ",
        "cursor=%27%20OR%201%3D1%20--",
        "sort=password_hash",
        "offset=1",
    )
]
PATHS = [
    Hostile(f"DELETE {path!r}", path, 404, "not_found", "DELETE", headers=BEARER)
    for path in (
        "/users/me/sessions/1",
        "/users/me/sessions/none",
        "/users/me/sessions/%00",
        "/users/me/sessions/%FF",
        "/users/me/sessions/00000000-0000-0000-0000-00000000000g",
        "/users/me/sessions/00000000-0000-0000-0000-000000000000/x",
        "/users/me/sessions/..%2f..",
        "/users/me/sessions/' OR 1=1 --",
    )
]
PATHS += [
    Hostile(
        "DELETE a session that isn't there",
        "/users/me/sessions/00000000-0000-0000-0000-000000000000",
        404,
        "session_not_found",
        "DELETE",
        headers=BEARER,
    )
]
PATHS += [
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
        "invalid_request" if path.startswith("/oauth/") else "method_not_allowed",
        method,
        headers=BEARER,
        never=("{access}",),
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

REQUESTS = {
    "json and forms": IN_JSON + IN_FORMS + BODIES,
    "sizes": SIZES,
    "client credentials and scopes": CREDENTIALS + SCOPED,
    "places, lists and paths": PLACES + LISTS + PATHS,
    "methods and headers": WRONG_METHODS + HEADERS,
}
