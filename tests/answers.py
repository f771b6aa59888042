"""What every error of this server looks like, whoever asks, and that it tells nothing about its inside."""

import re
from typing import Any

from werkzeug.test import TestResponse

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
OAUTH_MEMBERS = {"error", "error_description", "request_id"}
# RFC 6749 section 5.2: the characters of error_description.
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+")
# What people open in a browser: errors are pages, with the code and the request id.
PAGES = (
    *(
        "/login",
        "/register",
        "/consent",
        "/device",
        "/account",
        "/admin/console",
        "/forgot-password",
        "/reset-password",
        "/verify-email",
    ),
    *("/oauth/authorize", "/oauth/logout"),
)
CODE = re.compile(r'id="error-code">([a-z_]+)<')
INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/tokenserver/|\.sqlite|\.sock\b|SELECT |INSERT |UPDATE |psycopg|"
    r"sqlalchemy"
)


def faults(response: TestResponse) -> list[str]:
    """In what an answer, good or bad, is not as it must be."""
    found = []
    given = response.headers.get("X-Request-ID", "")
    if not re.fullmatch(r"[A-Za-z0-9._-]{8,64}", given):
        found.append(f"X-Request-ID {given!r}")
    if response.status_code >= 500 and (response.status_code != 503 or "Retry-After" not in response.headers):
        found.append(f"status {response.status_code}")
    # Below /admin lie REST endpoints.
    is_page = response.request.path.startswith(PAGES) or response.request.path == "/admin"
    if not is_page and (response.status_code in range(300, 304) or "Location" in response.headers):
        found.append("a redirect")
    if not is_page and response.text and "html" in str(response.content_type):
        found.append(f"Content-Type {response.content_type}")
    if INSIDE.search(response.text):
        found.append(f"tells about the inside: {response.text}")
    if response.status_code >= 400 and response.request.method != "HEAD":
        found += (_page_faults if is_page else _error_faults)(response, given)
        found += _header_faults(response, is_page=is_page)
    return found


def _page_faults(response: TestResponse, request_id: str) -> list[str]:
    found = []
    if response.mimetype != "text/html" or not CODE.search(response.text):
        found.append(f"Content-Type {response.content_type}, body {response.text!r}")
    if request_id not in response.text:
        found.append("the page doesn't tell the request id")
    if "frame-ancestors 'none'" not in response.headers.get("Content-Security-Policy", ""):
        found.append("the page may be framed")
    return found


def _error_faults(response: TestResponse, request_id: str) -> list[str]:
    found = []
    is_oauth = response.request.path.startswith("/oauth/")
    wanted = "application/json" if is_oauth else "application/problem+json"
    body: Any = response.get_json(force=True, silent=True)
    if response.mimetype != wanted or not isinstance(body, dict):
        return [f"Content-Type {response.content_type}, body {response.text!r}"]
    members = OAUTH_MEMBERS if is_oauth else PROBLEM_MEMBERS
    if body.keys() - {"errors"} != members or ("errors" in body) != (response.status_code == 422 and not is_oauth):
        found.append(f"members {sorted(body)}")
    if body.get("request_id") != request_id:
        found.append("request_id is not X-Request-ID")
    if is_oauth and not DESCRIPTION.fullmatch(body.get("error_description", "")):
        found.append(f"error_description {body.get('error_description')!r}")
    if not is_oauth and body.get("status") != response.status_code:
        found.append(f"status {body.get('status')} in the body")
    return found


def _header_faults(response: TestResponse, *, is_page: bool) -> list[str]:
    found = []
    if "no-store" not in response.headers.get("Cache-Control", ""):
        found.append("an error that may be stored")
    challenge = response.headers.get("WWW-Authenticate", "")
    # On a page a challenge would make the browser ask for a password by itself.
    if is_page and challenge:
        found.append(f"WWW-Authenticate {challenge!r} on a page")
    if not is_page and response.status_code in {401, 403} and not re.match(r"(Basic|Bearer) [a-z_]+=\"", challenge):
        found.append(f"WWW-Authenticate {challenge!r}")  # RFC 9110 section 11.6.1, RFC 6750 section 3
    if response.status_code == 405 and not response.headers.get("Allow"):
        found.append("405 without Allow")  # RFC 9110 section 15.5.6
    if response.status_code in {429, 503} and not response.headers.get("Retry-After", "").isdigit():
        found.append(f"{response.status_code} without Retry-After")
    return found


def word(response: TestResponse) -> str:
    """The machine-readable word of an error: `error` in OAuth's tongue, `code` in REST's; "" for a success."""
    if found := CODE.search(response.text):
        return found[1]
    body = response.get_json(force=True, silent=True)
    return str(body.get("error") or body.get("code") or "") if isinstance(body, dict) else ""


def refused(response: TestResponse, status: int, expected: str) -> TestResponse:
    """Asserts this refusal, in its uniform shape."""
    assert (response.status_code, word(response)) == (status, expected), response.text
    assert not faults(response)
    return response


def granted(response: TestResponse, status: int = 200) -> dict[str, Any]:
    """Asserts a success; its body."""
    assert response.status_code == status, response.text
    assert not faults(response)
    return dict(response.get_json()) if response.data else {}
