"""Requests that broke REST servers, each with the one right answer: tokens, paths, queries, dry runs, versions,
names and clients' metadata. Data, read by `test_section0`; `requests` says how to read a row.
"""

import gzip
import json
from collections.abc import Mapping
from typing import Any

from tests.hostile.every_endpoint import NOBODY
from tests.hostile.requests import ADMIN, BEARER, CLIENT, EC, JSON, JSON_REQUESTS, OKP, RSA, Hostile, headers_for

GUEST: Mapping[str, str] = {}
# A token of the admin that covers posts:create alone; the same, revoked; one for roles:*, clients:write.
NARROW = {"Authorization": "Bearer {narrow}"}
REVOKED = {"Authorization": "Bearer {revoked}"}
ASSIGNER = {"Authorization": "Bearer {assigner}"}
# The own token of a client with posts:create and users:read.
POSTER = {"Authorization": "Bearer {poster}"}


def _ask(
    method: str,
    path: str,
    status: int,
    word: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    environ: Mapping[str, str] | None = None,
    never: tuple[str, ...] = (),
) -> Hostile:
    """`body`: sent as JSON; when not given, the good one, where one is needed."""
    if body is None:
        body = JSON_REQUESTS.get((method, path.partition("?")[0]))
    headers = headers_for(path) if headers is None else headers
    sent = b"" if body is None else json.dumps(body)
    return Hostile(
        " ".join([method, path[:200], *headers.values(), str(sent)[:200], str(environ or "")[:100]]),
        path,
        status,
        word,
        method,
        sent,
        None if body is None else JSON,
        headers,
        environ or {},
        never=never,
    )


READS = (
    "/users",
    "/users/{ann}",
    "/users/{ann}/sessions",
    "/roles",
    "/roles/premium",
    "/permissions",
    "/clients",
    "/clients/poster",
    "/admin/logs",
    "/admin/logs/checkpoint",
    "/admin/stats",
    "/admin/keys",
    "/admin/explain?user=ann&permission=posts:create",
)
# Each of these would do something; where the resource has a version, with its path.
REHEARSABLE = (
    ("POST", "/roles", None),
    ("PUT", "/roles/premium/permissions", "/roles/premium"),
    ("DELETE", "/roles/spare", "/roles/spare"),
    ("PUT", "/users/{ann}/roles", "/users/{ann}"),
    ("PUT", "/users/{ann}/status", "/users/{ann}"),
    ("DELETE", "/users/{ann}/sessions", None),
    ("DELETE", "/users/{ann}/sessions/{ann_session}", None),
    ("POST", "/clients", None),
    ("PUT", "/clients/poster", "/clients/poster"),
    ("DELETE", "/clients/poster", "/clients/poster"),
    ("POST", "/clients/poster/secret", "/clients/poster"),
    ("POST", "/admin/keys/rotate", None),
)
LISTS: Mapping[str, Mapping[str, str]] = {
    "/users/me/sessions": BEARER,
    "/users": ADMIN,
    "/roles": ADMIN,
    "/permissions": ADMIN,
    "/posts": ADMIN,
    "/clients": ADMIN,
    "/admin/logs": ADMIN,
    "/admin/keys": ADMIN,
}

# Tokens. Dead before too narrow, and guests are told nothing.
TOKENS = [
    _ask(method, path, status, word, headers=headers)
    for method, path in [*(("GET", path) for path in READS), *(each[:2] for each in REHEARSABLE)]
    for headers, status, word in (
        (GUEST, 401, "authentication_required"),
        ({"Authorization": "Basic {basic}"}, 401, "authentication_required"),
        (REVOKED, 401, "invalid_token"),
        ({"Authorization": "Bearer {tampered}"}, 401, "invalid_token"),
        ({"Authorization": "Bearer {unsigned}"}, 401, "invalid_token"),
        ({"Authorization": "Bearer {refresh}"}, 401, "invalid_token"),
        (NARROW, 403, "insufficient_scope"),
        (BEARER, 403, "insufficient_scope"),
    )
]
TOKENS += [
    _ask(method, path, 401, "invalid_token", headers={"Authorization": f"Bearer {token}"})
    for method, path in (
        ("GET", "/posts"),
        ("GET", "/posts/{post}"),
        ("POST", "/posts"),
        ("DELETE", "/posts/{post}"),
        ("GET", f"/roles/verify?role=user&role_id={NOBODY}"),
        ("GET", "/users/me"),
        ("DELETE", "/users/me/sessions/{admin_session}"),
        ("POST", "/auth/logout"),
    )
    for token in ("{revoked}", "{tampered}", "{unsigned}", "{refresh}", "x")
]
TOKENS += [
    Hostile(f"HEAD {path} as a guest", path, 401, "", "HEAD")
    for path in (*READS, "/users/me", "/users/me/sessions", "/roles/verify")
]
# OWASP API1:2023 and API5:2023: what is somebody else's, and what is an admin's.
TOKENS += [
    _ask("GET", "/users/{admin}", 403, "insufficient_scope", headers=BEARER, never=("admin@",)),
    _ask("PUT", "/users/{admin}/roles", 403, "insufficient_scope", headers=BEARER, body={"roles": ["user"]}),
    _ask("PUT", "/users/{admin}/status", 403, "insufficient_scope", headers=BEARER, body={"status": "disabled"}),
    _ask("PUT", "/users/{ann}/roles", 403, "insufficient_scope", headers=BEARER, body={"roles": ["admin"]}),
    _ask("PUT", "/users/me/roles", 404, "not_found", headers=BEARER, body={"roles": ["admin"]}),
    _ask("PUT", "/users/me/status", 404, "not_found", headers=BEARER, body={"status": "active"}),
    _ask("DELETE", "/users/me/sessions/{admin_session}", 404, "session_not_found", headers=BEARER),
    _ask("DELETE", f"/users/me/sessions/{NOBODY}", 404, "session_not_found", headers=BEARER),
    _ask("GET", "/posts/{private}", 404, "post_not_found", headers=GUEST, never=("Secret",)),
    _ask("GET", "/posts/{private}", 404, "post_not_found", headers=BEARER, never=("Secret",)),
    _ask("GET", "/posts/{anns_private}", 404, "post_not_found", never=("Secret",)),
    _ask("GET", "/posts", 200, "", headers=GUEST, never=("Secret",)),
    _ask("GET", "/posts", 200, "", headers=BEARER, never=("Secret of the admin",)),
    _ask("GET", "/posts", 200, "", headers=POSTER, never=("Secret",)),
    _ask("GET", "/posts?limit=100", 200, "", never=("Secret of Ann",)),
    _ask("DELETE", "/posts/{post}", 401, "authentication_required", headers=GUEST),
    _ask("DELETE", "/posts/{post}", 403, "permission_denied", headers=BEARER),
    _ask("DELETE", "/posts/{post}", 403, "permission_denied", headers=POSTER),
    _ask("DELETE", "/posts/{private}", 404, "post_not_found", headers=BEARER),
    _ask("POST", "/posts", 403, "user_required", headers=POSTER),
    _ask("GET", "/users/me", 403, "user_required", headers=POSTER),
    _ask("GET", "/users/me/sessions", 403, "user_required", headers=POSTER),
    _ask("GET", "/users", 403, "insufficient_scope", headers=POSTER),
]
# Nobody hands on what their token doesn't cover, in a rehearsal neither.
TOKENS += [
    _ask(method, path + query, 403, "exceeds_own_permissions", headers=ASSIGNER, body=body)
    for method, path, body in (
        ("POST", "/roles", {"name": "mallory", "permissions": ["keys:write"]}),
        ("PUT", "/roles/premium/permissions", {"permissions": ["posts:create", "users:read", "keys:write"]}),
        ("PUT", "/roles/spare/permissions", {"permissions": []}),
        ("PUT", "/roles/admin/permissions", {"permissions": []}),
        ("DELETE", "/roles/spare", None),
        ("PUT", "/users/{ann}/roles", {"roles": ["user", "admin"]}),
        ("PUT", "/users/{ann}/roles", {"roles": []}),
        ("PUT", "/users/{admin}/roles", {"roles": []}),
        ("POST", "/clients", CLIENT | {"scope": "", "first_party": True}),
        ("POST", "/clients", CLIENT | {"scope": "keys:write", "first_party": False}),
        ("PUT", "/clients/poster", CLIENT | {"scope": "", "first_party": False}),
        ("PUT", "/clients/first-party", {"grant_types": ["password", "refresh_token"]}),
        ("DELETE", "/clients/poster", None),
        ("POST", "/clients/poster/secret", None),
    )
    for query in ("", "?dry_run=true")
]
# Somebody stays who can manage roles; what everything depends on stays.
TOKENS += [
    _ask(method, path + query, 409, word, body=body)
    for method, path, body, word in (
        ("PUT", "/users/{admin}/roles", {"roles": []}, "last_admin"),
        ("PUT", "/users/{admin}/roles", {"roles": ["user", "moderator"]}, "last_admin"),
        ("PUT", "/users/{admin}/status", {"status": "disabled"}, "last_admin"),
        ("PUT", "/roles/admin/permissions", {"permissions": []}, "last_admin"),
        ("PUT", "/roles/admin/permissions", {"permissions": ["roles:assign"]}, "last_admin"),
        ("PUT", "/roles/{admin_role}/permissions", {"permissions": ["roles:write"]}, "last_admin"),
        ("DELETE", "/roles/admin", None, "builtin_role"),
        ("DELETE", "/roles/{admin_role}", None, "builtin_role"),
        ("DELETE", "/roles/premium", None, "role_in_use"),
        ("DELETE", "/clients/first-party", None, "builtin_client"),
        ("PUT", "/clients/first-party", CLIENT, "builtin_client"),
        ("POST", "/clients/first-party/secret", None, "public_client"),
        ("POST", "/clients", CLIENT | {"client_id": "poster"}, "client_exists"),
        ("POST", "/clients", CLIENT | {"client_id": "first-party"}, "client_exists"),
    )
    for query in ("", "?dry_run=true")
]

# Queries.
BAD_PAGES = (
    "limit=-1",
    "limit=0",
    "limit=-0",
    "limit=101",
    "limit=1e2",
    "limit=1e3",
    "limit=1.0",
    "limit=%2B1",
    "limit=1_0",
    "limit=",
    "limit",
    "limit=abc",
    "limit=true",
    "limit=null",
    "limit=99999999999999999999",
    "limit=00000000000000000001",
    "limit=" + "9" * 5000,
    "limit=%D9%A1%D9%A2",
    "limit=%EF%BC%91",
    "limit=%C2%B2",
    "limit=0x10",
    "limit=%205",
    "limit=5%20",
    "limit=5%0A",
    "limit=5;cursor=x",
    "limit=5&limit=5",
    "limit=5&limit=6",
    "limit[]=5",
    "Limit=5",
    "%20limit=5",
    "lim%00it=5",
    "%00=1",
    "%FF=1",
    "=1",
    "x",
    "sort=password_hash",
    "offset=1",
    "fields=password_hash",
    "dry_run=true",
    "&".join(f"p{i}=x" for i in range(1000)),
)
BAD_CURSORS = (
    "",
    "AAAA",
    "A",
    "A" * 5000,
    "A" * 60_000,
    "=",
    "%FF",
    "%ED%A0%80",
    "%C3%A9",
    "%F0%9F%94%91",
    "!!!!",
    "..",
    "null",
    "[]",
    "1",
    "eyJhIjoxfQ",
    "WyJhZG1pbiJd",
    "%27%20OR%201%3D1%20--",
    "x&cursor=y",
)
QUERIES = [
    _ask("GET", f"{path}?{query}", 422, "validation_failed", headers=headers)
    for path, headers in LISTS.items()
    for query in (*BAD_PAGES, *(f"cursor={cursor}" for cursor in BAD_CURSORS))
]
QUERIES += [
    _ask("GET", f"{path}?{query}", 400, "malformed_request", headers=headers)
    for path, headers in LISTS.items()
    for query in ("limit=%00", "limit=5%00", "cursor=%00", "cursor={cursor of /roles}%00", "x=%00")
]
# A cursor goes on in the list that gave it, for whom it gave it, and in no other shape.
QUERIES += [
    _ask("GET", f"{path}?cursor={{cursor of {other}}}", 422, "validation_failed", headers=headers)
    for path, headers in LISTS.items()
    for other in LISTS
    if other != path
]
QUERIES += [
    _ask("GET", f"{path}?cursor={cursor}", 422, "validation_failed", headers=headers)
    for path, headers in LISTS.items()
    for cursor in (
        f"{{half of the cursor of {path}}}",
        f"{{cursor of {path} with a bit of the MAC turned}}",
        f"{{cursor of {path} with a bit of the place turned}}",
        f"{{cursor of {path}}}AAAA",
        f"AAAA{{cursor of {path}}}",
        f"{{cursor of {path}}}{{cursor of {path}}}",
        f"{{cursor of {path}}}&cursor={{cursor of {path}}}",
    )
]
QUERIES += [
    _ask("GET", path, 422, "validation_failed", headers=headers)
    for path, headers in (
        ("/posts?cursor={cursor of /posts}", GUEST),
        ("/posts?cursor={cursor of /posts}", BEARER),
        ("/posts?cursor={cursor of guests}", ADMIN),
        ("/users?q=a&cursor={cursor of /users}", ADMIN),
        ("/users?status=active&cursor={cursor of /users}", ADMIN),
        ("/clients?q=o&cursor={cursor of /clients}", ADMIN),
        ("/admin/logs?outcome=denied&cursor={cursor of /admin/logs}", ADMIN),
        ("/admin/logs?path=/users*&cursor={cursor of /admin/logs}", ADMIN),
    )
]
QUERIES += [
    _ask("GET", "/users/me/sessions?cursor={cursor of /users/me/sessions}", 200, "", never=("{ann_session}",))
]

# Filters: refused when they are wrong, and never more than a text to look for.
QUERIES += [
    _ask("GET", path, 422, "validation_failed")
    for path in (
        "/users?q=" + "x" * 255,
        "/users?q=a&q=b",
        "/users?Q=a",
        "/users?status=",
        "/users?status=Active",
        "/users?status=deleted",
        "/users?status=active&status=disabled",
        "/users?role=admin",
        "/users?password_hash=x",
        "/clients?q=" + "x" * 256,
        "/clients?q=a&q=b",
        "/clients?client_secret=x",
        "/roles?q=" + "x" * 65,
        "/roles?q=a&q=b",
        "/roles?Q=a",
        "/posts?author=ann",
        "/posts?public=false",
        "/admin/logs?action=nope",
        "/admin/logs?action=",
        "/admin/logs?action=*",
        "/admin/logs?outcome=yes",
        "/admin/logs?outcome=",
        "/admin/logs?since=",
        "/admin/logs?since=now",
        "/admin/logs?since=1700000000",
        "/admin/logs?since=1e999",
        "/admin/logs?since=2024-01-01",
        "/admin/logs?since=2024-01-01T00:00:00",
        "/admin/logs?since=2024-02-30T00:00:00Z",
        "/admin/logs?since=2024-01-01T25:00:00Z",
        "/admin/logs?since=10000-01-01T00:00:00Z",
        "/admin/logs?since=-001-01-01T00:00:00Z",
        "/admin/logs?since=0001-01-01T00:00:00%2B23:59",
        "/admin/logs?until=9999-12-31T23:59:59-23:59",
        "/admin/logs?until=2024-01-01T00:00:00%2B99:00",
        "/admin/logs?until=%D9%A2%D9%A0%D9%A2%D9%A4-01-01T00:00:00Z",
        "/admin/logs?until=" + "9" * 5000,
        "/admin/logs?until=2024-01-01T00:00:00Z&until=2024-01-02T00:00:00Z",
        "/admin/logs?actor={ann}&actor={admin}",
        "/admin/logs?actor[]={ann}",
        "/admin/logs?event=x",
        "/admin/stats?window=",
        "/admin/stats?window=24",
        "/admin/stats?window=1H",
        "/admin/stats?window=0h",
        "/admin/stats?window=-1h",
        "/admin/stats?window=9999d",
        "/admin/stats?window=%201h",
        "/admin/stats?window=1h&window=7d",
        "/admin/stats?limit=1",
        "/admin/explain",
        "/admin/explain?user=ann",
        "/admin/explain?permission=posts:create",
        "/admin/explain?user=ann&user=admin&permission=posts:create",
        "/roles/verify",
        "/roles/verify?role=user",
        "/roles/verify?role_id={admin_role}",
        "/roles/verify?role=user&role=admin&role_id={admin_role}",
        "/roles/verify?role=user&role_id={admin_role}&role_id={admin_role}",
        "/roles/verify?role=user&role_id=",
        "/roles/verify?role=user&role_id=1",
        "/roles/verify?role=user&role_id=admin",
        "/roles/verify?role=user&role_id={admin_role}%0A",
        "/roles/verify?role=user&role_id=%20{admin_role}",
        "/roles/verify?role=user&role_id=%7B{admin_role}%7D",
        "/roles/verify?role=user&role_id=urn:uuid:{admin_role}",
        f"/roles/verify?role=user&role_id={NOBODY.replace('-', '')}",
        "/roles/verify?role=user&role_id=%EF%BC%97b0f6a52-9d5b-4a3e-8f0a-0d7f5f3b2c1d",
    )
]
QUERIES += [
    _ask("GET", f"{path}?{name}=a%00b{more}", 400, "malformed_request")
    for path, names, more in (
        ("/users", ("q", "status"), ""),
        ("/clients", ("q",), ""),
        ("/admin/logs", ("actor", "action", "outcome", "path", "since", "until", "request_id"), ""),
        ("/admin/stats", ("window",), ""),
        ("/admin/explain", ("user",), "&permission=posts:create"),
        ("/admin/explain", ("permission", "resource"), "&user=ann"),
        ("/roles/verify", ("role",), "&role_id={admin_role}"),
        ("/roles/verify", ("role_id",), "&role=user"),
    )
    for name in names
]
SEARCHES = (
    "%25",
    "_",
    "%25%25",
    "%5C",
    "%5C%25",
    "a_n%",
    "p_ster",
    "ann%25",
    "*",
    "[a-z]",
    "%27%20OR%20%271%27%3D%271",
    "ann%27%20--",
    "%27%29%3B%20DROP%20TABLE%20users%3B%20--",
    "$1",
    "%(x)s",
    ":x",
    "%FF",
    "%ED%A0%80",
    "%E2%80%AEann",
    "%EF%B7%BA" * 254,
)
QUERIES += [
    _ask("GET", f"{path}?q={search}", 200, "", never=("ann@example.org", '"poster"'))
    for path in ("/users", "/clients")
    for search in SEARCHES
]
QUERIES += [
    _ask("GET", f"/admin/logs?{name}={search}", 200, "", never=('"action"',))
    for name, searches in (
        ("actor", (*SEARCHES, "x" * 5000)),
        ("request_id", (*SEARCHES, "x" * 5000)),
        ("path", ("%25*", "_users*", "/_sers*", "/%25*", "%5C*", "%FF*", "**", "x" * 5000)),
        ("until", ("0001-01-01T00:00:00Z",)),
        ("since", ("9999-12-31T23:59:59Z",)),
    )
    for search in searches
]
QUERIES += [
    _ask("GET", f"/admin/explain?user={user}&permission=posts:create", 404, "user_not_found")
    for user in (
        "",
        "nobody",
        NOBODY,
        "{admin_role}",
        "{post}",
        "poster",
        "ann%20OR%201",
        "%27",
        "%25",
        "ann%0A@",
        "%FF",
        "x" * 5000,
        "@",
        "ann@example.org@evil.example",
    )
]
QUERIES += [
    _ask("GET", f"/admin/explain?user=ann&permission={permission}", 422, "unknown_permission")
    for permission in ("", "*", "admin", "Posts:create", "posts:create%20", "posts:%25", "%EF%BC%8A", "x" * 5000)
]
QUERIES += [
    _ask("GET", f"/admin/explain?user=ann&permission=posts:delete:any&resource={resource}", status, word)
    for resource, status, word in (
        ("/posts/{ann}", 404, "resource_not_found"),
        (f"/posts/{NOBODY}", 404, "resource_not_found"),
        ("", 422, "validation_failed"),
        ("/", 422, "validation_failed"),
        ("{post}", 422, "validation_failed"),
        ("/posts/", 422, "validation_failed"),
        ("/posts/{post}/", 422, "validation_failed"),
        ("/posts/{post}%0A", 422, "validation_failed"),
        ("/posts/{post}?x", 422, "validation_failed"),
        ("//posts/{post}", 422, "validation_failed"),
        ("/POSTS/{post}", 422, "validation_failed"),
        ("/posts/../users/{ann}", 422, "validation_failed"),
        ("/posts/%7B{post}%7D", 422, "validation_failed"),
        ("http://evil.example/posts/{post}", 422, "validation_failed"),
        ("/users/{ann}", 422, "validation_failed"),
        ("/__class__/{ann}", 422, "validation_failed"),
        ("x" * 5000, 422, "validation_failed"),
    )
]
QUERIES += [
    _ask("GET", f"/roles/verify?role={role}&role_id={{admin_role}}", 404, "role_not_found")
    for role in (
        "",
        "nope",
        "Admin",
        "{admin_role}",
        "admin%0A",
        "%20admin",
        "%EF%BD%81dmin",
        "admin%25",
        "%FF",
        "%27%20OR%201%3D1%20--",
        "x" * 5000,
    )
]

# Dry runs. What isn't said right must not be taken for a real run, nor a real run for a rehearsal.
DRY_RUNS = [
    _ask(method, f"{path}?{query}", 422, "validation_failed")
    for method, path, _ in REHEARSABLE
    for query in (
        "dry_run=1",
        "dry_run=0",
        "dry_run=TRUE",
        "dry_run=True",
        "dry_run=yes",
        "dry_run=on",
        "dry_run=t",
        "dry_run=null",
        "dry_run=",
        "dry_run",
        "dry_run=%20true",
        "dry_run=true%0A",
        "dry_run=%EF%BD%94rue",
        "dry_run=true;x=1",
        "dry_run=true&dry_run=true",
        "dry_run=true&dry_run=false",
        "dry_run=false&dry_run=true",
        "dry_run=true&x=1",
        "dry_run%00=true",
        "dry_run[]=true",
        "dry_run%5B%5D=true",
        "Dry_Run=true",
        "dry-run=true",
        "dryRun=true",
        "+dry_run=true",
        "if_match=*",
    )
]
DRY_RUNS += [_ask(method, f"{path}?dry_run=true%00", 400, "malformed_request") for method, path, _ in REHEARSABLE]
DRY_RUNS += [
    _ask(method, f"{path}?dry_run=true", 200, "", never=("client_secret", "private", "Mallory"))
    for method, path, _ in REHEARSABLE
    if path != "/admin/keys/rotate"  # which depends on the age of the next key
]
DRY_RUNS += [
    _ask(method, f"{path}{joint}{query}", 422, "validation_failed")
    for method, path in (
        ("GET", "/users/{ann}"),
        ("GET", "/roles/premium"),
        ("GET", "/clients/poster"),
        ("GET", "/posts/{post}"),
        ("POST", "/posts"),
        ("DELETE", "/posts/{post}"),
        ("GET", "/users/me"),
        ("PUT", "/users/me"),
        ("DELETE", "/users/me/sessions/{ann_session}"),
        ("POST", "/auth/register"),
        ("POST", "/auth/login"),
        ("POST", "/auth/refresh"),
        ("POST", "/auth/logout"),
        ("GET", "/admin/explain?user=ann&permission=posts:create"),
        ("GET", "/roles/verify?role=user&role_id={admin_role}"),
        ("GET", "/admin/stats?window=1h"),
    )
    for joint in ("&" if "?" in path else "?")
    for query in ("dry_run=true", "dry_run=false", "dry_run", "x=1", "%00=1", "limit=1&limit=1", "_method=DELETE")
]
DRY_RUNS += [
    _ask(method, f"{path}{joint}x=%00", 400, "malformed_request")
    for method, path in (
        ("POST", "/posts"),
        ("DELETE", "/posts/{post}"),
        ("POST", "/auth/login"),
        ("POST", "/auth/logout"),
    )
    for joint in "?"
]

# Versions (RFC 9110 section 13.1.1). What is no list of entity tags, or another version, is no leave to write.
IF_MATCH = (
    "",
    ",",
    '"',
    '""',
    '"*"',
    "**",
    "abc",
    '"abc"',
    'W/"abc"',
    '"abc", "def"',
    '"abc" "def"',
    "'abc'",
    '"abc", *',
    '*, "abc"',
    "W/*",
    "*, *",
    '"a\0b"',
    '"\xff"',
    '"' + "x" * 8192 + '"',
    "x" * 8192,
    ", ".join(f'"{i}"' for i in range(1000)),
    '"' * 5000,
    "{etag of /users/{admin}}",
    "W/{etag of RESOURCE}",
    "X{etag of RESOURCE}",
)
VERSIONS = [
    _ask(
        method,
        path,
        412,
        "precondition_failed",
        environ={"HTTP_IF_MATCH": if_match.replace("RESOURCE", resource)},
    )
    for method, path, resource in REHEARSABLE
    if resource is not None
    for if_match in IF_MATCH
]
VERSIONS += [
    _ask(method, path, 404, word, environ={"HTTP_IF_MATCH": "*"}, body=body)
    for method, path, word, body in (
        ("PUT", "/roles/nope/permissions", "role_not_found", {"permissions": []}),
        ("DELETE", "/roles/nope", "role_not_found", None),
        ("PUT", f"/users/{NOBODY}/roles", "user_not_found", {"roles": []}),
        ("PUT", f"/users/{NOBODY}/status", "user_not_found", {"status": "active"}),
        ("PUT", "/clients/nope", "client_not_found", CLIENT),
        ("DELETE", "/clients/nope", "client_not_found", None),
        ("POST", "/clients/nope/secret", "client_not_found", None),
    )
]
VERSIONS += [
    Hostile(
        f"{name}: {value}, GET /roles/spare",
        "/roles/spare",
        200,
        "",
        "GET",
        headers=ADMIN,
        environ={"HTTP_" + name: value},
    )
    for name, value in (
        ("X_HTTP_METHOD_OVERRIDE", "DELETE"),
        ("X_HTTP_METHOD", "DELETE"),
        ("X_METHOD_OVERRIDE", "DELETE"),
        ("RANGE", "bytes=0-0"),
        ("IF_NONE_MATCH", '"' * 5000),
        ("IF_MODIFIED_SINCE", "Thu, 01 Jan 1970 00:00:00 GMT" * 100),
    )
]

# Names.
ODD_NAMES = (
    "",
    " ",
    ".",
    "..",
    "../admin",
    "a/b",
    "a b",
    "a%2fb",
    "%61dmin",
    "*",
    "-x",
    "_x",
    " admin",
    "admin ",
    "admin\t",
    "admin\n",
    "admin\r\nX-Evil: 1",
    "admin\u2028",
    "\uff41\uff44\uff4d\uff49\uff4e",  # full-width
    "adm\u200bin",  # zero-width space
    "adm\u200din",  # zero-width joiner
    "adm\u00adin",  # soft hyphen
    "\ufeffadmin",
    "\u202enimda",  # right to left
    "adm\u0131n",  # dotless i
    "ADM\u0130N",  # dotted I
    "\u0430dmin",  # Cyrillic a
    "ad\u0301min",
    "\U0001f511",
    "\u0661",
    "<script>alert(1)</script>",
    "'; DROP TABLE roles; --",
    "{{7*7}}",
    "$" + "{jndi:ldap://evil.example/x}",
    "x" * 60_000,
)
NAMES = [
    _ask("POST", "/roles", 422, "validation_failed", body={"name": name}, never=("X-Evil", "<script>"))
    for name in (
        *ODD_NAMES,
        "x" * 65,
        "verify",
        "Verify",
        "VERIFY",
        NOBODY,
        NOBODY.upper(),
        NOBODY.replace("-", ""),
        f"urn:uuid:{NOBODY}",
        f"{NOBODY[:4]}-{NOBODY[4:]}",
    )
]
NAMES += [
    _ask("POST", "/roles", 409, "role_exists", body={"name": name})
    for name in ("admin", "Admin", "ADMIN", "aDmIn", "User", "MODERATOR", "Premium", "spare")
]
NAMES += [
    _ask("POST", "/roles", 422, "validation_failed", body={"name": "mallory", "description": description})
    for description in ("a\nb", "a\u2028b", "\x1b[31m", "\x7f", "\x85", "x" * 256)
]
NAMES += [
    _ask(method, path, 422, "unknown_permission", body=body | {"permissions": [*others, permission]})
    for method, path, body in (
        ("POST", "/roles", {"name": "mallory"}),
        ("PUT", "/roles/premium/permissions", {}),
    )
    for permission in (
        *ODD_NAMES,
        "admin",
        "Posts:create",
        "posts:create ",
        "posts:*",
        "openid",
        "posts\uff1acreate",
    )
    for others in ([], ["posts:create"])
]
NAMES += [
    _ask("PUT", "/users/{ann}/roles", 422, "unknown_role", body={"roles": [*others, name]})
    for name in (*ODD_NAMES[:-1], "Admin", "ADMIN", "verify", "posts:create", "{admin_role}")
    for others in ([], ["premium"])
]
NAMES += [
    _ask("PUT", "/users/{ann}/roles", 422, "unknown_role", body={"roles": [str(i) for i in range(7000)]}),
    _ask("PUT", "/users/{ann}/roles", 422, "validation_failed", body={"roles": ["a"] * 10_001}),
    _ask("PUT", "/users/{ann}/roles", 422, "validation_failed", body={"roles": ["x" * 65]}),
    _ask("PUT", "/roles/premium/permissions", 422, "validation_failed", body={"permissions": ["logs:read"] * 1001}),
    _ask("POST", "/roles", 422, "validation_failed", body={"name": "mallory", "permissions": ["logs:read"] * 1001}),
]
NAMES += [
    _ask("PUT", "/users/{ann}/status", 422, "validation_failed", body={"status": status})
    for status in ("", "Active", "ACTIVE", "active ", "active\n", "deleted", "\uff41ctive", "disabled\u200b")
]
NAMES += [
    _ask("POST", "/posts", 422, "validation_failed", body={"title": "x", "body": "x"} | body)
    for body in (
        {"title": ""},
        {"title": " \t"},
        {"title": "\u3000"},
        {"title": "a\nb"},
        {"title": "a\u2028b"},
        {"title": "\x1b[31m"},
        {"title": "\x85"},
        {"title": "x" * 201},
        {"title": "\U0001f511" * 201},
        {"body": ""},
        {"body": "\x1b[31m"},
        {"body": "\x9f"},
        {"body": "x" * 20_001},
    )
]
NAMES += [
    Hostile(
        f"{text} in a list: {method} {path}", path, 400, "malformed_request", method, body, JSON, headers_for(path)
    )
    for text in ("a\\u0000b", "a\\ud800b", "\\udc00\\ud800")
    for method, path, body in (
        ("POST", "/roles", f'{{"name": "mallory", "permissions": ["{text}"]}}'),
        ("PUT", "/roles/premium/permissions", f'{{"permissions": ["posts:create", "{text}"]}}'),
        ("PUT", "/users/{ann}/roles", f'{{"roles": ["premium", "{text}"]}}'),
        ("POST", "/clients", f'{{"grant_types": ["password"], "redirect_uris": ["https://{text}"]}}'),
        ("PUT", "/clients/poster", f'{{"grant_types": ["password"], "jwks": {{"keys": [{{"kid": "{text}"}}]}}}}'),
        ("PUT", "/clients/poster", f'{{"grant_types": ["password"], "jwks": {{"{text}": []}}}}'),
    )
]
NAMES += [
    Hostile(
        f"gzip: {method} {path}",
        path,
        400,
        "malformed_request",
        method,
        gzip.compress(json.dumps(good).encode()),
        JSON,
        {**headers_for(path), "Content-Encoding": "gzip"},
    )
    for (method, path), good in JSON_REQUESTS.items()
]

# Paths and ids.
BAD_IDS = (
    "1",
    "-1",
    "none",
    "%00",
    "%FF",
    "%0D%0AX-Evil:%201",
    "%2e%2e",
    "..%2f..",
    "..;",
    "' OR 1=1 --",
    "00000000-0000-0000-0000-00000000000g",
    NOBODY.replace("-", ""),
    "%7B" + NOBODY + "%7D",
    "urn:uuid:" + NOBODY,
    NOBODY + "%00",
    NOBODY + "%0A",
    "%20" + NOBODY,
    "%EF%BC%97" + NOBODY[1:],
    NOBODY + "/",
    "x" * 8000,
)
PATHS = [
    _ask(method, path.replace("ID", bad), 404, "not_found", body=body, never=("\nX-Evil",))
    for method, path, body in (
        ("GET", "/users/ID", None),
        ("PUT", "/users/ID/roles", {"roles": ["admin"]}),
        ("PUT", "/users/ID/status", {"status": "disabled"}),
        ("GET", "/posts/ID", None),
        ("DELETE", "/posts/ID", None),
        ("DELETE", "/users/me/sessions/ID", None),
    )
    for bad in BAD_IDS
]
BAD_WORDS = (
    "nope",
    "%00",
    "%FF",
    "%ED%A0%80",
    "%0D%0AX-Evil:%201",
    "%2e%2e",
    "%20",
    "*",
    "%25",
    "_",
    "' OR 1=1 --",
    "%EF%BD%81dmin",
    "{post}",
    "{ann}",
    "%7B{admin_role}%7D",
    NOBODY,
    "x" * 8000,
)
PATHS += [
    _ask(method, path.replace("ID", bad), 404, word, body=body, never=("\nX-Evil",))
    for method, path, body, word, more in (
        ("GET", "/roles/ID", None, "role_not_found", ("Admin", "admin%00", "admin%0A", "%20admin")),
        (
            "PUT",
            "/roles/ID/permissions",
            {"permissions": []},
            "role_not_found",
            ("Premium", "premium%00", "verify"),
        ),
        ("DELETE", "/roles/ID", None, "role_not_found", ("Spare", "spare%00", "verify")),
        ("GET", "/clients/ID", None, "client_not_found", ("Poster", "poster%00", "poster%0A", "{admin_role}")),
        ("PUT", "/clients/ID", CLIENT, "client_not_found", ("Poster", "poster%00")),
        ("DELETE", "/clients/ID", None, "client_not_found", ("Poster", "poster%00")),
        ("POST", "/clients/ID/secret", None, "client_not_found", ("Poster", "poster%00")),
    )
    for bad in (*BAD_WORDS, *more)
]
# Ids of another kind.
PATHS += [
    _ask(method, path.replace("ID", other), 404, word, body=body)
    for method, path, body, word, others in (
        ("GET", "/users/ID", None, "user_not_found", ("{post}", "{admin_role}", "{admin_session}", NOBODY)),
        ("PUT", "/users/ID/roles", {"roles": ["admin"]}, "user_not_found", ("{post}", "{admin_role}", NOBODY)),
        ("PUT", "/users/ID/status", {"status": "disabled"}, "user_not_found", ("{post}", "{admin_role}", NOBODY)),
        ("GET", "/posts/ID", None, "post_not_found", ("{ann}", "{admin_role}", NOBODY)),
        ("DELETE", "/posts/ID", None, "post_not_found", ("{ann}", "{admin_role}", NOBODY)),
        (
            "DELETE",
            "/users/me/sessions/ID",
            None,
            "session_not_found",
            ("{ann}", "{admin_session}", "{post}", NOBODY),
        ),
    )
    for other in others
]
PATHS += [
    _ask(method, path, 404, "not_found", body={})
    for method, path in (
        ("GET", "/users/"),
        ("GET", "//users"),
        ("GET", "/Users"),
        ("GET", "/users/{ann}/"),
        ("GET", "/users//{ann}"),
        ("PUT", "/users/{ann}/roles/"),
        ("PUT", "/users/{ann}/../{admin}/roles"),
        ("PUT", "/users/{ann};/roles"),
        ("PUT", "/users/{ann}/permissions"),
        ("PUT", "/users/{ann}/password"),
        ("GET", "/roles/"),
        ("GET", "/roles/premium/"),
        ("GET", "/roles/premium/x"),
        ("GET", "/roles//premium"),
        ("GET", "/roles/..%2fadmin"),
        ("DELETE", "/roles/spare/"),
        ("PUT", "/roles//permissions"),
        ("PUT", "/roles/premium/permissions/"),
        ("GET", "/permissions/"),
        ("GET", "/permissions/posts:create"),
        ("POST", "/posts/"),
        ("DELETE", "/posts/{post}/"),
        ("GET", "/clients/"),
        ("DELETE", "/clients/poster/"),
        ("POST", "/clients/poster/secret/"),
        ("POST", "/clients//secret"),
        ("GET", "/admin/"),
        ("GET", "/admin/logs/"),
        ("GET", "/admin//logs"),
        ("GET", "/admin/./logs"),
        ("GET", "/admin/x/../logs"),
        ("GET", "/admin/users"),
        ("GET", "/admin/keys/{ann}"),
        ("POST", "/admin/keys/rotate/"),
        ("POST", "/admin/keys/%72otate%00"),
        ("POST", "/admin/keys/rotate%0A"),
        ("GET", "/static/x"),
        ("GET", "/.git/config"),
        ("GET", "/.env"),
        ("GET", "/keys/manifest.json"),
        ("GET", "/docs/..%2f..%2fsetup.cfg"),
        ("GET", "/docs/%2e%2e"),
        ("GET", "/docs/%00"),
        ("GET", "/docs/index.html"),
        ("GET", "/docs/x"),
        ("GET", "/docs//etc/passwd"),
        ("GET", "/openapi.json/"),
        ("GET", "/openapi.json%00"),
    )
]
# Whatever a request says about where it went, what everybody reads names the issuer alone.
PATHS += [
    Hostile(
        f"{name}: {value[:40]}, GET {path}",
        path,
        200,
        "",
        "GET",
        environ={name: value},
        never=("evil.example",),
        page=path.startswith("/docs?"),
    )
    for path in (
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/jwks.json",
        "/oauth/revocation_list",
        "/healthz",
        "/readyz",
        "/posts",
        "/openapi.json",
        "/openapi.json?url=https://evil.example/openapi.json",
        "/docs?url=https://evil.example/openapi.json&configUrl=//evil.example&v=%00",
        "/docs/init.js?v=https://evil.example",
    )
    for name, value in (
        ("HTTP_HOST", "evil.example"),
        ("HTTP_HOST", 'evil.example"><b>'),
        ("HTTP_X_FORWARDED_HOST", "evil.example"),
        ("HTTP_FORWARDED", "host=evil.example;proto=https"),
        ("HTTP_ORIGIN", "https://evil.example"),
        ("SCRIPT_NAME", "/evil.example"),
        ("HTTP_IF_NONE_MATCH", '"evil.example", W/"' + '"' * 5000),
        ("HTTP_USER_AGENT", "evil.example\0\xff" * 1000),
    )
]

# Clients' metadata (RFC 7591 section 5: what is registered is not to be trusted).
BAD_REDIRECT_URIS = (
    "",
    " ",
    "*",
    "/cb",
    "cb",
    "//evil.example/cb",
    "\\\\evil.example\\cb",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "java\tscript:alert(1)",
    "javascript://localhost/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "blob:https://mallory.example/x",
    "file:///etc/passwd",
    "about:blank",
    "view-source:https://mallory.example",
    "urn:ietf:wg:oauth:2.0:oob",
    "mailto:ann@example.org",
    "ftp://localhost/cb",
    "intent://evil.example#Intent;end",
    "com.example.app:/cb",  # for public clients
    "http://mallory.example/cb",
    "http://localhost:80@evil.example/cb",
    "http://localhost@evil.example/cb",
    "http://localhost.evil.example/cb",
    "http://127.0.0.1.evil.example/cb",
    "http://127.1/cb",
    "http://2130706433/cb",
    "http://0x7f000001/cb",
    "http://0.0.0.0/cb",
    "http://[::]/cb",
    "http://[::ffff:7f00:1]/cb",
    "http://[",
    "http://[]/cb",
    "https://[]/cb",
    "https://[:::1]/cb",
    "https://[::1::]/cb",
    "https://[1:2]/cb",
    "https://[127.0.0.1]/cb",
    "https://[g::1]/cb",
    "http://[::1",
    "http://[::1]evil.example/cb",
    "http://[::1%25eth0]/cb",
    "http://[fe80::1%eth0]/cb",
    "https://",
    "https:///cb",
    "https:/mallory.example/cb",
    "https:mallory.example/cb",
    "HTTPS://mallory.example/cb",
    "https://user:pw@mallory.example/cb",
    "https://@mallory.example/cb",
    "https://good.example\\@mallory.example/cb",
    "https://good.example%2f@mallory.example/cb",
    "https://mallory.example/cb#",
    "https://mallory.example/cb#f",
    "https://mallory.example#@good.example",
    "https://mallory.example/cb\r\nX-Evil: 1",
    "https://mallory.example/cb\n",
    " https://mallory.example/cb",
    "https://mallory.example/cb ",
    "https://mallory.example/c b",
    'https://mallory.example/"><script>',
    "https://mallory.example/%zz",
    "https://mallory.example/%",
    "https://*.example/cb",
    "https://mallory..example/cb",
    "https://.example/cb",
    "https://m\u00e4llory.example/cb",
    "https\uff1a//mallory.example/cb",
    "https://mallory\u3002example/cb",
    "https://\u202emallory.example/cb",
    "https://mallory.example/\u202e",
    "https://mallory.example:/cb",
    "https://mallory.example:0/cb",
    "https://mallory.example:65536/cb",
    "https://mallory.example:99999/cb",
    "https://mallory.example:-1/cb",
    "https://mallory.example:\u0661/cb",
    "https://mallory.example/" + "x" * 2000,
    "https://" + "a" * 60_000,
)
BAD_KEYS: tuple[Any, ...] = (
    None,
    1,
    "x",
    [],
    {},
    {"kty": None},
    {"kty": {}},
    {"kty": ["RSA"]},
    {"kty": "rsa"},
    {"kty": "none"},
    {"kty": "oct", "k": "c2VjcmV0"},
    {"kty": "oct"},
    OKP | {"d": OKP["x"]},
    OKP | {"d": None},
    OKP | {"crv": "X25519"},
    OKP | {"crv": "Ed448"},
    OKP | {"crv": ["Ed25519"]},
    OKP | {"crv": float("nan")},
    OKP | {"x": ""},
    OKP | {"x": None},
    OKP | {"x": 1},
    OKP | {"x": "!" * 43},
    OKP | {"x": "\u00e9" * 43},
    OKP | {"x": OKP["x"] + "AAAA"},
    OKP | {"x": OKP["x"][:20]},
    OKP | {"kid": 1},
    OKP | {"kid": None},
    OKP | {"kid": ["1"]},
    OKP | {"kid": "x" * 20_000},
    OKP | {"use": ["sig"]},
    OKP | {"alg": None},
    OKP | {"key_ops": "verify"},
    OKP | {"key_ops": {"verify": True}},
    OKP | {"key_ops": [float("nan")]},
    OKP | {"key_ops": [float("-inf")]},
    OKP | {"key_ops": [1]},
    OKP | {"key_ops": [["verify"]]},
    OKP | {"key_ops": [{"verify": None}]},
    EC | {"d": EC["x"]},
    EC | {"crv": "p-256"},
    EC | {"crv": "P-384"},
    EC | {"crv": "secp256k1"},
    EC | {"y": EC["x"]},
    EC | {"x": "AA", "y": "AA"},
    {"kty": "EC", "crv": "P-256", "x": EC["x"]},
    RSA | {"d": "AQAB"},
    RSA | {"p": float("nan")},
    RSA | {"oth": []},
    RSA | {"n": float("nan")},
    RSA | {"n": float("inf")},
    RSA | {"n": 3},
    RSA | {"n": []},
    RSA | {"n": ""},
    RSA | {"n": "AQ"},
    RSA | {"n": "_" * 171},
    RSA | {"n": "_" * 2800},
    RSA | {"e": ""},
    RSA | {"e": "AA"},
    RSA | {"e": "AQ"},
    RSA | {"e": "Ag"},
    RSA | {"e": 65537},
    RSA | {"e": None},
    RSA | {"e": "_" * 400},
    {"kty": "RSA", "n": RSA["n"]},
    {"kty": "RSA", "e": "AQAB"},
)
BAD_SETS: tuple[Any, ...] = (
    {},
    {"keys": None},
    {"keys": []},
    {"keys": {}},
    {"keys": "x"},
    {"keys": {"0": OKP}},
    {"Keys": [OKP]},
    {"jwks": {"keys": [OKP]}},
    OKP,
    {"keys": [OKP] * 11},
    {"keys": [OKP] * 100},
    {"keys": [OKP], "x": "x" * 20_000},
    *({"keys": [OKP, key]} for key in BAD_KEYS),
)
BAD_METADATA: tuple[dict[str, Any], ...] = (
    *({"redirect_uris": ["https://mallory.example/cb", uri]} for uri in BAD_REDIRECT_URIS),
    {"redirect_uris": [f"https://mallory.example/{i}" for i in range(21)]},
    {"redirect_uris": ["https://mallory.example/cb"] * 2},
    *({"jwks": jwks} for jwks in BAD_SETS),
    *({"client_name": name} for name in ("a\nb", "\x1b[31m", "\u202eevil", "a\u2028b", "\u200b", "x" * 256)),
    *(
        {"grant_types": grants}
        for grants in ([], [""], ["refresh_token"], ["implicit"], ["Password"], ["password "])
    ),
    {"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"},
    {"grant_types": ["password"] * 2 + ["urn:ietf:params:oauth:grant-type:evil"]},
    *({"response_types": types} for types in (["token"], ["id_token"], [""], ["code "], ["none"])),
    *({"token_endpoint_auth_method": method} for method in ("", "NONE", "none ", "client_secret", "Basic")),
    *(
        {"scope": scope}
        for scope in (
            " ",
            "posts:create ",
            " posts:create",
            "posts:create  users:read",
            "posts:create\tusers:read",
            "posts:create\nusers:read",
            "posts:create,users:read",
            "Posts:create",
            "*",
            "nope",
            "admin",
            "posts\uff1acreate",
            '"',
            "x " * 20_000 + "x",
        )
    ),
    *(
        {"audience": audience}
        for audience in (
            [""],
            [" "],
            ["a b"],
            ["a\nb"],
            ["\u00e9"],
            ["x" * 256],
            ["x"] * 2,
            list(map(str, range(21))),
        )
    ),
)
METADATA = [
    _ask(method, path, 422, "validation_failed", body=good | bad, never=("X-Evil", "<script>"))
    for method, path, good in (("POST", "/clients", CLIENT), ("PUT", "/clients/poster", CLIENT))
    for bad in BAD_METADATA
]
METADATA += [
    _ask("POST", "/clients", 422, "validation_failed", body=CLIENT | {"client_id": client_id}, never=("X-Evil",))
    for client_id in (
        *ODD_NAMES,
        "x" * 129,
        NOBODY,
        NOBODY.upper(),
        NOBODY.replace("-", ""),
        "poster\n",
        "poster:x",
        "\uff50oster",
    )
]
# Deep enough to pass the parser and to break what walks behind it.
METADATA += [
    Hostile(f"{where} {depth} deep: {method} {path}", path, status, word, method, body, JSON, ADMIN)
    for method, path in (("POST", "/clients"), ("PUT", "/clients/poster"))
    for depth, status, word in (
        (50, 422, "validation_failed"),
        *((depth, 400, "malformed_request") for depth in (65, 700, 936)),
    )
    for where, jwks in (
        ("jwks", '{"keys": DEEP}'),
        ("a key", '{"keys": [{"kty": "RSA", "n": DEEP}]}'),
        ("key_ops", json.dumps({"keys": [OKP | {"key_ops": "DEEP"}]}).replace('"DEEP"', "DEEP")),
        ("beside the keys", json.dumps({"keys": [], "x": "DEEP"}).replace('"DEEP"', "DEEP")),
    )
    for body in (
        json.dumps(CLIENT | {"jwks": 1})
        .replace('"jwks": 1', f'"jwks": {jwks}')
        .replace("DEEP", "[" * depth + "]" * depth),
    )
]

REST_REQUESTS = {
    "tokens, paths and ids": TOKENS + PATHS,
    "queries": QUERIES,
    "dry runs and versions": DRY_RUNS + VERSIONS,
    "names and metadata": NAMES + METADATA,
}
