"""An authenticator app and recovery codes over REST: enrolled, asked for, spent once, taken away."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import select, update

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api, Apps, bearer
from tests.oauth.conftest import claims_of
from tests.totp import App, decoded, enrolled
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.identity.second_factors import reauthentication, recovery_codes, totp
from tokenserver.identity.second_factors.factors import GUESSES
from tokenserver.identity.second_factors.models import AuthenticatorApp, RecoveryCode
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now

PATH = "/users/me/second-factors"
# RFC 4226 appendix D; RFC 6238 appendix B, errata 2866: secrets of the length of the hash.
HOTP = ("755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489")
TOTP = (
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
)


def seed(length: int) -> bytes:
    return (b"1234567890" * 7)[:length]


def test_published_vectors():
    assert tuple(totp.hotp(seed(20), counter) for counter in range(10)) == HOTP
    for seconds, *codes in TOTP:
        for code, algorithm, length in zip(codes, ("sha1", "sha256", "sha512"), (20, 32, 64), strict=True):
            step = totp.step_at(seconds)
            assert totp.hotp(seed(length), step, digits=8, algorithm=algorithm) == code


def test_a_code_is_good_in_its_own_step_and_the_two_beside_it():
    """RFC 6238 section 5.2."""
    code = totp.hotp(seed(20), 1000)
    found = [totp.matching_step(seed(20), code, step * 30 + 29) for step in range(997, 1004)]
    assert found == [None, None, 1000, 1000, 1000, None, None]
    assert totp.matching_step(seed(20), code[:5], 30_000) is None
    assert totp.matching_step(seed(20), "\ud800", 30_000) is None


def login(api: Api, otp: str | None = None, password: str = PASSWORD) -> Any:
    body = {"login": "ann", "password": password} | ({} if otp is None else {"otp": otp})
    return api.http.post("/auth/login", json=body)


def post(api: Api, path: str, token: str, **body: str) -> Any:
    return api.http.post(f"{PATH}{path}", json=body, headers=bearer(token))


@pytest.fixture
def token(api: Api) -> str:
    return str(api.signed_in()["access_token"])


def test_enrolling_shows_the_secret_once_and_counts_after_the_first_code(api: Api, rooms: Rooms, token: str):
    begun = granted(post(api, "/totp", token, current_password=PASSWORD), 201)
    parts = urlsplit(begun["uri"])
    asked = parse_qs(parts.query)
    assert (parts.scheme, parts.netloc, unquote(parts.path)) == (
        "otpauth",
        "totp",
        "/127.0.0.1:8000:ann@example.org",
    )
    assert asked == {
        "secret": [begun["secret"]],
        "issuer": ["127.0.0.1:8000"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }
    app = App(decoded(begun["secret"]))
    assert len(app.secret) == 20
    stored = rooms.database.read(lambda tx: tx.scalar(select(AuthenticatorApp.sealed)))
    assert stored
    assert app.secret not in stored
    # Not confirmed: nobody is asked for it.
    granted(login(api))
    refused(post(api, "/totp/confirm", token, otp=app.wrong_code()), 403, "invalid_otp")
    assert granted(api.http.get(PATH, headers=bearer(token)))["totp"] is None
    codes = granted(post(api, "/totp/confirm", token, otp=app.code()))["recovery_codes"]
    assert len(set(codes)) == 10
    shown = granted(api.http.get(PATH, headers=bearer(token)))
    assert shown["totp"]["confirmed_at"]
    assert (shown["passkeys"], shown["recovery_codes_left"]) == ([], 10)
    refused(post(api, "/totp/confirm", token, otp="123456"), 404, "totp_not_enrolled")
    refused(post(api, "/totp", token), 401, "insufficient_user_authentication")
    refused(login(api), 401, "second_factor_required")
    claims = claims_of(granted(login(api, app.code()))["access_token"])
    assert (claims["acr"], claims["amr"]) == ("2", ["pwd", "otp", "mfa"])


def test_each_code_is_taken_once(api: Api, token: str):
    """RFC 6238 section 5.2; the one that confirmed the app too."""
    app, _ = enrolled(api, token)
    first = totp.hotp(app.secret, max(app.shown))
    refused(login(api, first), 401, "invalid_otp")
    code = app.code()
    granted(login(api, f"{code[:3]} {code[3:]}"))
    refused(login(api, code), 401, "invalid_otp")


def test_of_many_at_once_on_two_nodes_one_gets_in(apps: Apps, api: Api, token: str):
    app, codes = enrolled(api, token)
    nodes = [apps(rate_limits=False) for _ in range(2)]

    def spend(number: int, code: str) -> bool:
        rooms = rooms_of(nodes[number % 2])
        user = rooms.people.find_by_login("ann")
        assert user
        return rooms.second_factors.spend(user.id, code)

    for code in (app.code(), codes[0]):
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(lambda number, code=code: spend(number, code), range(16))) == 1


def test_only_the_right_password_tells_that_there_is_a_second_factor(api: Api, token: str):
    _, codes = enrolled(api, token)
    wrong = refused(login(api, password="wrong"), 401, "invalid_credentials")
    other = refused(login(api, codes[0], password="wrong"), 401, "invalid_credentials")
    assert wrong.json["detail"] == other.json["detail"]
    # It was not spent.
    granted(login(api, codes[0]))


def test_the_password_grant(api: Api, confidential: tuple[str, str], token: str):
    app, _ = enrolled(api, token)
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
    tries = ({}, {"otp": app.wrong_code()}, {"password": "wrong", "otp": app.wrong_code()})
    answers = [refused(api.token(confidential, **(form | more)), 400, "invalid_grant") for more in tries]
    sentences = [answer.json["error_description"] for answer in answers]
    assert sentences == [
        "A second factor is required: send otp too.",
        "The second factor is wrong.",
        "The grant is wrong, expired or revoked.",
    ]
    issued = granted(api.token(confidential, **form, otp=app.code(), scope="openid"))
    assert claims_of(issued["id_token"])["acr"] == "2"
    told = granted(api.introspect(confidential, issued["access_token"]))
    assert (told["acr"], told["amr"]) == ("2", ["pwd", "otp", "mfa"])
    refreshed = granted(api.token(confidential, grant_type="refresh_token", refresh_token=issued["refresh_token"]))
    assert claims_of(refreshed["access_token"])["acr"] == "2"


def test_recovery_codes_are_good_once_and_counted(api: Api, rooms: Rooms, token: str):
    app, codes = enrolled(api, token)
    stored = rooms.database.read(lambda tx: tx.scalars(select(RecoveryCode.digest)).all())
    assert len(stored) == 10
    granted(login(api, codes[0]))
    refused(login(api, codes[0]), 401, "invalid_otp")
    # As people type them.
    granted(login(api, codes[1].upper().replace("-", " ").replace("0", "O").replace("1", "I")))
    assert granted(api.http.get(PATH, headers=bearer(token)))["recovery_codes_left"] == 8
    used = rooms.database.read(
        lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.event == "recovery_code:used")).all()
    )
    assert sorted(event.details["left"] for event in used) == [8, 9]
    fresh = granted(post(api, "/recovery-codes", token, current_password=PASSWORD, otp=app.code()), 201)
    assert not set(fresh["recovery_codes"]) & set(codes)
    refused(login(api, codes[2]), 401, "invalid_otp")
    granted(login(api, fresh["recovery_codes"][2]))


def test_recovery_codes_can_not_be_guessed():
    code = recovery_codes.generate()
    assert len(code.replace("-", "")) * 5 >= 64  # NIST SP 800-63B-4 section 3.1.2


def test_guesses_are_counted_for_the_account_and_a_recovery_code_still_gets_in(api: Api, token: str):
    app, codes = enrolled(api, token)
    wrong = app.wrong_code()
    answers = [login(api, wrong).status_code for _ in range(GUESSES.burst + 1)]
    assert answers == [401] * GUESSES.burst + [429]
    refused(login(api, app.code()), 429, "too_many_requests")
    granted(login(api, codes[0]))


def test_who_changes_them_must_be_there(api: Api, rooms: Rooms, token: str):
    """OWASP ASVS 7.5.1."""
    app, codes = enrolled(api, token)
    # The sign-in was lately, but by the password alone.
    answer = refused(post(api, "/recovery-codes", token), 401, "insufficient_user_authentication")
    challenge = answer.headers["WWW-Authenticate"]
    assert 'acr_values="2"' in challenge
    assert 'max_age="300"' in challenge
    refused(api.http.delete(f"{PATH}/totp", headers=bearer(token)), 401, "insufficient_user_authentication")
    refused(post(api, "/recovery-codes", token, current_password="wrong"), 403, "invalid_credentials")
    refused(post(api, "/recovery-codes", token, current_password=PASSWORD), 403, "second_factor_required")
    refused(
        post(api, "/recovery-codes", token, current_password=PASSWORD, otp=app.wrong_code()), 403, "invalid_otp"
    )
    strong = granted(login(api, codes[0]))["access_token"]
    granted(post(api, "/recovery-codes", strong), 201)
    granted(api.http.delete(f"{PATH}/totp", headers=bearer(strong)), 204)
    shown = granted(api.http.get(PATH, headers=bearer(token)))
    assert shown == {"totp": None, "passkeys": [], "recovery_codes_left": 0}
    refused(api.http.delete(f"{PATH}/totp", headers=bearer(token)), 404, "totp_not_enrolled")
    refused(post(api, "/recovery-codes", token), 409, "no_second_factor")
    granted(login(api))


@pytest.mark.parametrize(
    "change", [{"username": "anna"}, {"email": "anna@example.org"}, {"password": "another horse 8 battery"}]
)
def test_names_and_the_password_change_with_it_alone(api: Api, token: str, change: dict[str, str]):
    """OWASP ASVS 7.5.1: whoever took a token and the password must not take the account with it."""
    app, codes = enrolled(api, token)

    def put(token: str, **body: str) -> Any:
        return api.http.put("/users/me", json=change | body, headers=bearer(token))

    before = granted(api.me(token))
    refused(put(token), 403, "reauthentication_required")
    refused(put(token, otp=codes[0]), 403, "reauthentication_required")
    refused(put(token, current_password="wrong", otp=codes[0]), 403, "invalid_credentials")
    refused(put(token, current_password=PASSWORD), 403, "second_factor_required")
    refused(put(token, current_password=PASSWORD, otp=app.wrong_code()), 403, "invalid_otp")
    assert granted(api.me(token)) == before
    granted(put(token, current_password=PASSWORD, otp=codes[0]))
    # What needs no password needs no second factor.
    granted(api.http.put("/users/me", json={"name": "Ann"}, headers=bearer(token)))


def test_who_proved_it_lately_is_not_asked_again(api: Api, token: str, monkeypatch: pytest.MonkeyPatch):
    _, codes = enrolled(api, token)
    strong = granted(login(api, codes[0]))["access_token"]
    body = {"username": "anna", "current_password": PASSWORD}
    with monkeypatch.context() as patch:
        patch.setattr(reauthentication, "RECENT_SECONDS", -60)
        refused(api.http.put("/users/me", json=body, headers=bearer(strong)), 403, "second_factor_required")
    refused(
        api.http.put("/users/me", json={"username": "anna"}, headers=bearer(strong)),
        403,
        "reauthentication_required",
    )
    granted(api.http.put("/users/me", json=body, headers=bearer(strong)))


def test_an_old_sign_in_is_not_enough(api: Api, rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    token = api.signed_in()["access_token"]
    monkeypatch.setattr(reauthentication, "RECENT_SECONDS", -60)
    refused(post(api, "/totp", token), 401, "insufficient_user_authentication")
    granted(post(api, "/totp", token, current_password=PASSWORD), 201)


def test_a_secret_that_waited_too_long_is_void(api: Api, rooms: Rooms, token: str):
    begun = granted(post(api, "/totp", token), 201)
    rooms.database.write(
        lambda tx: tx.execute(update(AuthenticatorApp).values(created_at=utc_now() - timedelta(minutes=16)))
    )
    refused(post(api, "/totp/confirm", token, otp=App(decoded(begun["secret"])).code()), 404, "totp_not_enrolled")


def test_an_admin_resets_them(api: Api, rooms: Rooms, token: str):
    enrolled(api, token)
    user = granted(api.me(token))
    path = f"/users/{user['id']}/second-factors"
    refused(api.http.delete(path, headers=bearer(token)), 403, "insufficient_scope")
    admin = api.login("admin@localhost", ADMIN_PASSWORD)["access_token"]
    nothing = {"dry_run": True, "user_count": 0, "session_count": 0, "users": [], "clients": []}
    rehearsed = granted(api.http.delete(f"{path}?dry_run=true", headers=bearer(admin)))
    assert rehearsed == nothing | {"second_factors": {"totp": True, "passkeys": 0}}
    refused(login(api), 401, "second_factor_required")
    granted(api.http.delete(path, headers=bearer(admin)), 204)
    granted(login(api))
    rehearsed = granted(api.http.delete(f"{path}?dry_run=true", headers=bearer(admin)))
    assert rehearsed["second_factors"] == {"totp": False, "passkeys": 0}
    events = rooms.database.read(
        lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.event == "second_factors:reset")).all()
    )
    assert [(event.target, event.details) for event in events] == [(user["id"], {"totp": True, "passkeys": 0})]
    refused(api.http.delete(f"/users/{UUID(int=1)}/second-factors", headers=bearer(admin)), 404, "user_not_found")


def test_secrets_outlive_a_rotation_of_the_ring(api: Api, rooms: Rooms, apps: Apps, token: str):
    """The sealing key changes; what is sealed under the old one is sealed again."""
    app, _ = enrolled(api, token)
    found = rooms.second_factors.apps
    user = rooms.people.find_by_login("ann")
    assert user
    old = found._keys()
    found._keys = lambda: (b"n" * 32, *old)
    assert found.reseal() == 1
    assert found.reseal() == 0
    found._keys = lambda: (b"n" * 32,)
    assert rooms.second_factors.spend(user.id, app.code())
    # In an emergency the old keys are gone from the ring already.
    found._keys = lambda: (b"m" * 32,)
    app.later(rooms)
    assert not rooms.second_factors.spend(user.id, app.code())
    assert found.reseal((b"n" * 32,)) == 1
    app.later(rooms)
    assert rooms.second_factors.spend(user.id, app.code())
