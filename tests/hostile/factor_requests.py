"""Requests about second factors, each with the one right answer. Data, read by `test_section0`."""

from tests.hostile.every_endpoint import NOBODY
from tests.hostile.requests import ADMIN, BEARER, FORM, JSON, Hostile
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
        ("POST", f"{MINE}/passkeys/options", {}),
        ("POST", f"{MINE}/passkeys", {"name": "x", "credential": {}}),
        ("PUT", f"{MINE}/passkeys/{NOBODY}", {"name": "x"}),
        ("DELETE", f"{MINE}/passkeys/{NOBODY}", None),
    )
    for headers, status, word in ((GUEST, 401, "authentication_required"), (POSTER, 403, "user_required"))
]
FACTORS += [
    _ask("POST", path, status, word, headers=BEARER, body=body)
    for path in (f"{MINE}/totp", f"{MINE}/recovery-codes", f"{MINE}/passkeys/options")
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
    # The server of these tests has an address for a name.
    _ask("POST", f"{MINE}/passkeys/options", 409, "passkeys_unavailable", headers=BEARER, body={}),
    _ask("PUT", f"{MINE}/passkeys/{NOBODY}", 404, "passkey_not_found", headers=BEARER, body={"name": "x"}),
    _ask("DELETE", f"{MINE}/passkeys/{NOBODY}", 404, "passkey_not_found", headers=BEARER),
    _ask("DELETE", f"{MINE}/passkeys/x", 404, "not_found", headers=BEARER),
    *(
        _ask("PUT", f"{MINE}/passkeys/{NOBODY}", 422, "validation_failed", headers=BEARER, body={"name": name})
        for name in ("", "x" * 65, "a\nb", None, 1)
    ),
    *(
        _ask(
            "POST",
            f"{MINE}/passkeys",
            *((403, "invalid_passkey") if isinstance(credential, dict) else (422, "validation_failed")),
            headers=BEARER,
            body={"name": "x", "credential": credential},
        )
        for credential in (
            "x",
            [],
            {},
            {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": None},
            {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": {"clientDataJSON": "e30"}},
            {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": {"clientDataJSON": "W1tb"}},
            {"id": {}, "rawId": [], "type": 1, "response": {"clientDataJSON": {}, "attestationObject": 1}},
        )
    ),
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

FACTORS += [
    Hostile(
        f"a form from elsewhere: {body}", "/account/security", 403, "csrf_failed", "POST", body, FORM, page=True
    )
    for body in ("", "csrf=x&action=remove-app", "action=renew-codes", "csrf=%E2%98%83&action=begin-app")
]
FACTORS += [
    Hostile("a form in JSON", "/account/security", 400, "malformed_request", "POST", "{}", JSON, page=True),
    Hostile("a page of nobody's", "/account/security/../elsewhere", 404, "not_found", "GET", page=True),
    Hostile("a method that is none", "/account", 405, "method_not_allowed", "PUT", "", FORM, page=True),
    # Who isn't signed in is led to the sign-in, and back to no other place.
    *(
        Hostile(f"{path} of a guest", path, 303, "", "GET", never=("evil.example",), page=True)
        for path in (
            "/account",
            "/account?next=//evil.example",
            "/account/security?resume=//evil.example",
            "/account/password?done=//evil.example",
            "/account/sessions",
            "/account/applications?client=//evil.example",
        )
    ),
]

FACTOR_REQUESTS = {"second factors": FACTORS}
