"""The second step of `/login`: asked of who has a second factor, bound to the browser and the password."""

from typing import Any

import pytest

from tests.conftest import PASSWORD, Api
from tests.pages.conftest import Browser, refused, shown
from tests.totp import App, enrolled
from tokenserver.pages import second_step


@pytest.fixture
def app_of_ann(browser: Browser, api: Api) -> tuple[App, list[str]]:
    return enrolled(api, str(api.login()["access_token"]))


def test_who_has_a_second_factor_is_asked_for_it(browser: Browser, rooms: Any, app_of_ann: tuple[App, list[str]]):
    authenticator, codes = app_of_ann
    interaction = browser.begin()
    second = browser.sign_in(interaction)
    elements = shown(second)
    assert elements.ids["otp"]["autocomplete"] == "one-time-code"
    assert {"login-submit", "login-cancel"} <= elements.ids.keys()
    assert elements.texts["signing-in-as"] == "ann"
    assert browser.session is None
    refused(browser.send(second), 400, "second_factor_required")
    again = browser.send(second, otp=authenticator.wrong_code())
    assert refused(again, 401, "invalid_otp").ids["otp"]["aria-invalid"] == "true"
    assert browser.session is None
    # The form that was answered with goes on like the first.
    answer = browser.send(again, otp=codes[0])
    assert (answer.status_code, answer.headers["Location"]) == (303, interaction.resume)
    signed_in = rooms.browser_sessions.find(browser.session)
    assert signed_in.amr == ("pwd", "otp", "mfa")
    assert browser.send(second, cancel="1").headers["Location"] == f"{interaction.resume}&cancel=1"


def test_the_step_is_worth_nothing_elsewhere(browser: Browser, browser_of: Any, app_of_ann: tuple[App, list[str]]):
    """In another browser, for another interaction, later, or changed."""
    _, codes = app_of_ann
    fields = shown(browser.sign_in()).fields
    other = browser_of(browser.app)
    own = shown(other.http.get("/login")).fields
    refused(other.http.post("/login", data=own | {"step": fields["step"], "otp": codes[0]}), 400, "sign_in_expired")
    elsewhere = fields | {"otp": codes[0]}
    for changed in (
        {"interaction": browser.begin().id},
        {"step": fields["step"][:-6] + "AAAAA="},
        {"step": "x"},
        {"step": "é"},
        {"step": "AAAA"},
    ):
        refused(browser.http.post("/login", data=elsewhere | changed), 400, "sign_in_expired")
    assert browser.session is None
    assert browser.http.post("/login", data=elsewhere).status_code == 303


def test_the_step_ends_with_its_time_and_with_the_password(
    browser: Browser, rooms: Any, app_of_ann: tuple[App, list[str]], monkeypatch: pytest.MonkeyPatch
):
    _, codes = app_of_ann
    page = browser.sign_in()
    with monkeypatch.context() as patch:
        patch.setattr(second_step, "LIFETIME_MS", -1)
        refused(browser.send(page, otp=codes[0]), 400, "sign_in_expired")
    user = rooms.people.find_by_login("ann")
    changed = {"password_hash": rooms.passwords.hash(PASSWORD + "!")}
    rooms.feed.change(lambda tx, change: rooms.people.update(tx, change, user.id, changed))
    refused(browser.send(page, otp=codes[0]), 400, "sign_in_expired")
    assert browser.session is None
