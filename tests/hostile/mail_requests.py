"""Requests for mail, and with what could be links of it. Data, read by `test_section0`; `requests` says how to
read a row.
"""

import json

from tests.hostile.requests import FORM, JSON, Hostile


def _tell(path: str, body: object, status: int, word: str, content_type: str = JSON) -> Hostile:
    sent = body if isinstance(body, str) else json.dumps(body)
    return Hostile(
        f"POST {path} {sent[:200]} {content_type}", path, status, word, body=sent, content_type=content_type
    )


def _page(method: str, path: str, status: int, word: str, body: str = "", never: tuple[str, ...] = ()) -> Hostile:
    content_type = FORM if body else None
    what = f"{method} {path[:200]} {body[:200]}"
    return Hostile(what, path, status, word, method, body, content_type, never=never, page=True)


ASKING = ("/auth/password/forgot", "/auth/verify-email/request")
NEW = "another horse 8 battery"
TOKEN = "x" * 43
ASKED = [
    _tell(path, body, status, word)
    for path in ASKING
    for body, status, word in (
        ({"email": "ann@example.org\r\nBcc: mallory@example.org"}, 422, "validation_failed"),
        ({"email": "ann@example.org,mallory@example.org"}, 422, "validation_failed"),
        ({"email": ["ann@example.org", "mallory@example.org"]}, 422, "validation_failed"),
        ({"email": "ann@example.org", "cc": "mallory@example.org"}, 422, "validation_failed"),
        ({"email": "ann"}, 422, "validation_failed"),
        ({"email": "a" * 255}, 422, "validation_failed"),
        ({"email": "\x00@example.org"}, 400, "malformed_request"),
        ([], 400, "malformed_request"),
    )
] + [_tell(path, "email=ann%40example.org", 415, "unsupported_media_type", FORM) for path in ASKING]
LINKS = [
    _tell(path, {"token": token} | more, status, word)
    for path, more in (("/auth/password/reset", {"password": NEW}), ("/auth/verify-email", {}))
    for token, status, word in (
        (TOKEN, 404, "link_not_found"),
        ("", 404, "link_not_found"),
        ("{access}", 404, "link_not_found"),
        ("{refresh}", 404, "link_not_found"),
        ("' OR 1=1 --", 404, "link_not_found"),
        ("x" * 1025, 422, "validation_failed"),
        (None, 422, "validation_failed"),
        ([TOKEN], 422, "validation_failed"),
        ("\x00", 400, "malformed_request"),
    )
]
LINKS += [
    # Neither a user nor a password is enough.
    _tell("/auth/password/reset", {"password": NEW, "username": "ann"}, 422, "validation_failed"),
    _tell("/auth/password/reset", {"token": TOKEN, "password": NEW, "user_id": "{ann}"}, 422, "validation_failed"),
]
PAGES = [
    _page("GET", "/forgot-password?email=mallory%40example.org", 200, "", never=("mallory",)),
    _page("POST", "/forgot-password", 403, "csrf_failed", "email=ann%40example.org&csrf=x"),
    _page("POST", "/reset-password", 403, "csrf_failed", f"password={NEW.replace(' ', '+')}&csrf=x"),
    _page("POST", "/verify-email", 403, "csrf_failed", "csrf=x"),
    _page("GET", "/reset-password", 404, "link_not_found"),
    _page("GET", "/verify-email", 404, "link_not_found"),
    _page("GET", "/reset-password?token=a&token=b", 400, "malformed_request"),
    _page("GET", "/verify-email?token=%ff", 400, "malformed_request"),
    _page("GET", "/reset-password?next=//mallory.example", 404, "link_not_found", never=("mallory",)),
]
MAIL_REQUESTS = {"mail": ASKED + LINKS + PAGES}
