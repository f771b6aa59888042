"""`/account/security`, and passkeys on `/login`: what a browser with an authenticator does, without its scripts."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from tests.authenticator import Authenticator
from tests.conftest import Api, Apps
from tests.pages.conftest import Browser, Elements, policy_of, refused, shown
from tests.totp import App, decoded
from tokenserver.config import Rate
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import Session

ORIGIN = "http://localhost"
PATH = "/account/security"


@pytest.fixture
def app(apps: Apps) -> Flask:
    return apps(issuer=ORIGIN)


def options_of(page: Any) -> dict[str, Any]:
    return dict(json.loads(str(shown(page).ids["passkey-form"]["data-options"])))


def act(browser: Browser, action: str, **fields: str) -> Any:
    csrf = Elements(browser.http.get(PATH).text).fields["csrf"]
    return browser.http.post(PATH, data={"csrf": csrf, "action": action} | fields)


def with_app(browser: Browser) -> tuple[App, list[str]]:
    """By the pages."""
    begun = shown(act(browser, "begin-app"))
    authenticator = App(decoded(begun.texts["totp-secret"].replace(" ", "")))
    codes = shown(act(browser, "confirm-app", otp=authenticator.code())).texts["recovery-codes"].split()
    return authenticator, codes


def answered(browser: Browser, page: Any, key: Authenticator, **fields: str) -> Any:
    """As the script does."""
    credential = json.dumps(key.get(options_of(page)))
    form = {name: value for name, value in shown(page).fields.items() if name not in {"username", "password"}}
    return browser.http.post("/login", data=form | {"credential": credential} | fields)


def test_an_app_is_added_and_removed(browser: Browser):
    asked = browser.http.get(PATH)
    assert asked.headers["Location"].startswith("/login?interaction=")
    back = browser.send(
        browser.http.get(asked.headers["Location"]), username="ann", password="correct horse 7 battery"
    )
    assert back.headers["Location"] == PATH
    assert shown(browser.http.get(PATH)).texts["signed-in-as"] == "ann"
    page = act(browser, "begin-app")
    begun = shown(page)
    assert "<svg" in page.text
    assert str(begun.ids["totp-uri"]["href"]).startswith("otpauth://totp/localhost:ann%40example.org?secret=")
    secret = begun.texts["totp-secret"].replace(" ", "")
    authenticator = App(decoded(secret))
    wrong = act(browser, "confirm-app", otp=authenticator.wrong_code())
    again = refused(wrong, 403, "invalid_otp")
    assert again.texts["totp-secret"].replace(" ", "") == secret
    codes = shown(act(browser, "confirm-app", otp=authenticator.code())).texts["recovery-codes"].split()
    assert len(codes) == 10
    # Signed in a moment ago, but by the password alone: the app is asked for, and nothing else.
    step = act(browser, "renew-codes")
    second = browser.http.get(step.headers["Location"])
    assert "password" not in shown(second).ids
    assert browser.send(second, otp=codes[0]).headers["Location"] == PATH
    assert shown(browser.http.get(PATH)).texts["codes-left"] == "9"
    assert len(shown(act(browser, "renew-codes")).texts["recovery-codes"].split()) == 10
    assert act(browser, "remove-app").headers["Location"] == f"{PATH}?done=remove-app"
    assert "codes-left" not in shown(browser.http.get(PATH)).texts


def test_nothing_is_changed_by_an_old_sign_in(browser: Browser, rooms: Any):
    browser.sign_in()
    old = utc_now() - timedelta(minutes=6)
    rooms.database.write(lambda tx: tx.execute(update(Session).values(authenticated_at=old)))
    page = browser.http.get(PATH)
    assert "sign-in-again" in shown(page).ids
    assert "begin-app" not in shown(page).ids
    for action in ("sign-in-again", "begin-app"):
        location = act(browser, action).headers["Location"]
        assert "password" in shown(browser.http.get(location)).ids
    assert rooms.second_factors.apps.pending(rooms.people.find_by_login("ann").id) is None


def test_forms_of_others_and_unknown_ones(browser: Browser):
    browser.sign_in()
    refused(browser.http.post(PATH, data={"action": "begin-app"}), 403, "csrf_failed")
    refused(act(browser, "nonsense"), 400, "malformed_request")
    refused(act(browser, "remove-passkey", passkey="x"), 400, "malformed_request")
    refused(act(browser, "add-passkey", credential="{}", name="a\x07"), 400, "malformed_request")
    for credential in ("{}", "x", "[]"):
        refused(act(browser, "add-passkey", credential=credential), 403, "invalid_passkey")
    refused(act(browser, "confirm-app", otp="123456"), 404, "totp_not_enrolled")


def test_a_passkey_in_the_place_of_the_password(browser: Browser, rooms: Any):
    browser.sign_in()
    key = Authenticator(ORIGIN)
    made = key.create(options_of(browser.http.get(PATH)))
    codes = shown(act(browser, "add-passkey", credential=json.dumps(made), name="Blue key")).texts["recovery-codes"]
    assert len(codes.split()) == 10
    page = browser.http.get("/login?as=other")
    assert policy_of(page)["script-src"] == "'self'"
    assert options_of(page)["userVerification"] == "required"
    interaction = browser.begin()
    before = browser.session
    done = answered(browser, browser.http.get(f"/login?interaction={interaction.id}"), key)
    assert (done.status_code, done.headers["Location"]) == (303, interaction.resume)
    assert browser.session != before
    assert rooms.browser_sessions.find(before) is None
    assert rooms.browser_sessions.find(browser.session).amr == ("pop", "user", "mfa")
    overview = browser.http.get(PATH)
    assert "Blue key" in shown(overview).texts["passkeys"]
    passkey = rooms.second_factors.held(rooms.people.find_by_login("ann").id).passkeys[0]
    removed = act(browser, "remove-passkey", passkey=str(passkey.id))
    assert removed.headers["Location"] == f"{PATH}?done=remove-passkey"
    assert "passkeys" not in shown(browser.http.get(PATH)).texts


def test_a_passkey_beside_the_password(browser: Browser, rooms: Any):
    browser.sign_in()
    key = Authenticator(ORIGIN, verifies=False)
    made = key.create(options_of(browser.http.get(PATH)))
    shown(act(browser, "add-passkey", credential=json.dumps(made)))
    second = browser.send(browser.http.get("/login?as=other"), username="ann", password="correct horse 7 battery")
    assert [each["type"] for each in options_of(second)["allowCredentials"]] == ["public-key"]
    stranger = Authenticator(ORIGIN, user=key.user)
    refused(answered(browser, second, stranger), 401, "invalid_passkey")
    assert answered(browser, second, key).status_code == 303
    assert rooms.browser_sessions.find(browser.session).amr == ("pwd", "pop", "user", "mfa")


def test_a_challenge_is_of_this_browser_and_interaction(
    browser: Browser, browser_of: Callable[[Flask], Browser], rooms: Any
):
    browser.sign_in()
    key = Authenticator(ORIGIN)
    made = key.create(options_of(browser.http.get(PATH)))
    shown(act(browser, "add-passkey", credential=json.dumps(made)))
    other = browser_of(browser.app)
    elsewhere = other.http.get("/login")
    page = browser.http.get("/login?as=other")
    credential = json.dumps(key.get(options_of(page)))
    csrf = shown(elsewhere).fields["csrf"]
    refused(other.http.post("/login", data={"csrf": csrf, "credential": credential}), 401, "invalid_passkey")
    form = {"csrf": shown(page).fields["csrf"], "credential": credential}
    moved = form | {"interaction": browser.begin().id}
    refused(browser.http.post("/login", data=moved), 401, "invalid_passkey")
    assert browser.http.post("/login", data=form).status_code == 303
    refused(browser.http.post("/login", data=form | {"credential": "x"}), 401, "invalid_passkey")


def test_who_comes_by_a_passkey_is_forgiven_their_wrong_passwords(
    apps: Apps, browser_of: Callable[[Flask], Browser], api: Api
):
    api.register()
    browser = browser_of(apps(issuer=ORIGIN, rate_limits=True, limit_login=Rate(3, 86400)))
    browser.sign_in()
    key = Authenticator(ORIGIN)
    shown(act(browser, "add-passkey", credential=json.dumps(key.create(options_of(browser.http.get(PATH))))))
    stranger = browser_of(browser.app)  # without the cookie of a known device

    def wrong(login: str) -> int:
        return stranger.http.post("/auth/login", json={"login": login, "password": "wrong horse"}).status_code

    for login in ("ann", "ann@example.org"):
        assert [wrong(login) for _ in range(4)] == [401, 401, 401, 429]
    assert answered(stranger, stranger.http.get("/login"), key).status_code == 303
    assert [wrong(login) for login in ("ann", "ann@example.org")] == [401, 401]


def test_without_passkeys_there_is_no_script(apps: Apps, browser_of: Callable[[Flask], Browser], api: Api):
    api.register()
    browser = browser_of(apps(issuer="http://127.0.0.1:8000"))
    assert "<script" not in browser.http.get("/login").text
    browser.sign_in()
    assert "passkey-form" not in shown(browser.http.get(PATH)).ids
