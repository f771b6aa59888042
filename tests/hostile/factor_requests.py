"""Requests about second factors, each with the one right answer. Data, read by `test_section0`."""

from tests.hostile.every_endpoint import NOBODY
from tests.hostile.requests import ADMIN, BEARER
from tests.hostile.rest_requests import GUEST, POSTER, _ask

MINE = "/users/me/second-factors"
FACTORS = [
    _ask(method, path, status, word, headers=headers, body=body)
    for method, path, body in (
        ("GET", MINE, None),
        ("POST", f"{MINE}/totp", {}),
        ("POST", f"{MINE}/totp/confirm", {"otp": "000000"}),
        ("DELETE", f"{MINE}/totp", None),
        ("POST", f"{MINE}/recovery-codes", {}),
    )
    for headers, status, word in ((GUEST, 401, "authentication_required"), (POSTER, 403, "user_required"))
]
FACTORS += [
    _ask("POST", path, status, word, headers=BEARER, body=body)
    for path in (f"{MINE}/totp", f"{MINE}/recovery-codes")
    for body, status, word in (
        ({"current_password": "wrong"}, 403, "invalid_credentials"),
        ({"current_password": ["wrong"]}, 422, "validation_failed"),
        ({"otp": "1" * 65}, 422, "validation_failed"),
        ({"otp": 123456}, 422, "validation_failed"),
        ({"otp": "12\x0034"}, 400, "malformed_request"),
        ({"user_id": "{admin}"}, 422, "validation_failed"),
        ([], 400, "malformed_request"),
    )
]
FACTORS += [
    # Nothing was begun, nothing is there.
    _ask("POST", f"{MINE}/totp/confirm", 404, "totp_not_enrolled", headers=BEARER, body={"otp": "000000"}),
    _ask("POST", f"{MINE}/totp/confirm", 422, "validation_failed", headers=BEARER, body={"otp": ""}),
    _ask("POST", f"{MINE}/totp/confirm", 422, "validation_failed", headers=BEARER, body={}),
    _ask("POST", f"{MINE}/recovery-codes", 409, "no_second_factor", headers=BEARER, body={}),
    _ask("DELETE", f"{MINE}/totp", 404, "totp_not_enrolled", headers=BEARER),
    _ask("DELETE", f"{MINE}/totp?user_id={NOBODY}", 422, "validation_failed", headers=BEARER),
    # Somebody else's are an admin's affair.
    _ask("DELETE", "/users/{admin}/second-factors", 401, "authentication_required", headers=GUEST),
    _ask("DELETE", "/users/{admin}/second-factors", 403, "insufficient_scope", headers=BEARER),
    _ask("DELETE", "/users/{ann}/second-factors", 403, "insufficient_scope", headers=BEARER),
    _ask("DELETE", f"/users/{NOBODY}/second-factors", 404, "user_not_found", headers=ADMIN),
    _ask("DELETE", "/users/x/second-factors", 404, "not_found", headers=ADMIN),
    # At the sign-in: a code makes up for no password.
    _ask(
        "POST",
        "/auth/login",
        401,
        "invalid_credentials",
        headers=GUEST,
        body={"login": "ann", "password": "wrong", "otp": "000000"},
    ),
    _ask(
        "POST",
        "/auth/login",
        422,
        "validation_failed",
        headers=GUEST,
        body={"login": "ann", "password": "wrong", "otp": ["000000"]},
    ),
]

FACTOR_REQUESTS = {"second factors": FACTORS}
