"""Hostile requests to the pages of the admin console and to `/metrics`. Data, read by `test_section0`; `requests`
says how to read a row.
"""

from tests.hostile.every_endpoint import NOBODY
from tests.hostile.requests import ADMIN, FORM, Hostile

HOME = "/admin/console"
READ = (
    "",
    "/clients",
    "/new-client",
    "/clients/poster",
    "/clients/poster/change",
    "/explain",
    "/keys",
    "/log",
    "/log/rows",
    "/roles",
    "/roles/premium",
    "/sign-in",
    "/stats",
    "/users",
    "/users/{ann}",
)
WRITTEN = (
    "/clients",
    "/clients/poster",
    "/clients/poster/delete",
    "/clients/poster/secret",
    "/keys/rotate",
    "/roles",
    "/matrix/preview",
    "/roles/premium/delete",
    "/matrix/save",
    "/sign-out",
    "/users/{ann}/password",
    "/users/{ann}/roles",
    "/users/{ann}/second-factors",
    "/users/{ann}/sessions",
    "/users/{ann}/status",
)
COOKIE = "__Host-console=" + "A" * 43

# Who isn't signed in is led to the sign-in and back to no other place; a token is no cookie.
CONSOLE = [
    Hostile(
        f"a guest: {HOME}{path} {query} {headers}",
        f"{HOME}{path}{query}",
        303,
        "",
        "GET",
        headers=headers,
        never=("evil.example", "<script>", "ann@example.org"),
        page=True,
    )
    for path in READ
    for query, headers in (
        ("", {}),
        ("?next=//evil.example&q=<script>", {}),
        ("", ADMIN),
        ("", {"Cookie": COOKIE}),
        ("", {"Cookie": "__Host-console=%00"}),
    )
]
CONSOLE += [
    Hostile(
        f"a form from elsewhere: {path}", HOME + path, 403, "csrf_failed", "POST", body, FORM, headers, page=True
    )
    for path in WRITTEN
    for body, headers in (
        ("", {}),
        ("csrf=x", {"Cookie": COOKIE}),
        ("csrf=" + "A" * 43 + "&confirmed=1", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}),
        ("csrf=x", ADMIN),
    )
]
CONSOLE += [
    Hostile("its short address", "/admin?next=//evil.example", 303, "", "GET", never=("evil.example",), page=True),
    Hostile("a page that there isn't", f"{HOME}/nothing", 404, "not_found", "GET", page=True),
    Hostile("a user that can't be", f"{HOME}/users/x", 404, "not_found", "GET", page=True),
    Hostile("a method that is none", f"{HOME}/users/{NOBODY}", 405, "method_not_allowed", "DELETE", page=True),
    Hostile("an answer that nobody asked for", f"{HOME}/callback", 404, "interaction_not_found", "GET", page=True),
    Hostile(
        "an answer of another server",
        f"{HOME}/callback?code=x&state=x&iss=https://evil.example",
        404,
        "interaction_not_found",
        "GET",
        never=("evil.example",),
        page=True,
    ),
]
METRICS = [
    Hostile(f"metrics: {headers}", "/metrics", 401, "metrics_token_required", "GET", headers=headers)
    for headers in ({}, ADMIN, {"Authorization": "Bearer x"}, {"X-Forwarded-For": "127.0.0.1"})
]

CONSOLE_REQUESTS = {"console": CONSOLE, "metrics": METRICS}
