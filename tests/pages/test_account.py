"""Below `/account`: profile, password, sessions and applications, by forms without scripts."""

import time
from uuid import uuid4

import pytest
from sqlalchemy import update

from tests.conftest import PASSWORD, Api
from tests.pages.conftest import Browser, Elements, refused, shown
from tests.totp import App
from tokenserver.app import rooms_of
from tokenserver.oauth.consent import Wanted
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import Session

PATHS = ("/account", "/account/password", "/account/security", "/account/sessions", "/account/applications")
NEW = "another horse 8 battery"


def act(browser: Browser, path: str, action: str, **fields: str):
    csrf = Elements(browser.http.get(path).text).fields["csrf"]
    return browser.http.post(path, data={"csrf": csrf, "action": action} | fields)


def person_of(browser: Browser):
    rooms = rooms_of(browser.app)
    signed_in = rooms.browser_sessions.find(browser.session)
    return rooms.people.find(signed_in.user_id), signed_in


@pytest.mark.parametrize("path", PATHS)
def test_each_page_takes_a_sign_in_and_comes_back(browser: Browser, path: str):
    asked = browser.http.get(path)
    assert asked.headers["Location"].startswith("/login?interaction=")
    done = browser.send(browser.http.get(asked.headers["Location"]), username="ann", password=PASSWORD)
    assert done.headers["Location"] == path
    assert shown(browser.http.get(path)).texts["signed-in-as"] == "ann"
    refused(act(browser, path, "nothing-like-it"), 400, "malformed_request")
    refused(browser.http.post(path, data={"action": "save"}), 403, "csrf_failed")


def test_a_profile_changes_by_the_rules_of_rest(browser: Browser, api: Api):
    browser.sign_in()
    api.register("bob")
    same = {"username": "ann", "email": "ann@example.org"}
    assert act(browser, "/account", "save", **same, name="Ann Archer").status_code == 303
    assert person_of(browser)[0].name == "Ann Archer"
    assert act(browser, "/account", "save", **same).status_code == 303
    assert person_of(browser)[0].name is None

    other = same | {"username": "anna"}
    elements = refused(act(browser, "/account", "save", **other), 403, "reauthentication_required")
    assert elements.ids["username"]["value"] == "anna"
    assert elements.ids["current_password"]["aria-invalid"] == "true"
    refused(act(browser, "/account", "save", **other, current_password="wrong"), 403, "invalid_credentials")
    taken = same | {"username": "bob", "current_password": PASSWORD}
    elements = refused(act(browser, "/account", "save", **taken), 409, "username_taken")
    assert elements.ids["username"]["aria-invalid"] == "true"
    wrong = {"username": "!", "email": "nothing", "current_password": PASSWORD}
    elements = refused(act(browser, "/account", "save", **wrong), 422, "validation_failed")
    assert {name for name, given in elements.ids.items() if given.get("aria-invalid")} == {"username", "email"}
    assert act(browser, "/account", "save", **other, current_password=PASSWORD).status_code == 303
    assert person_of(browser)[0].username == "anna"
    assert "value" not in shown(browser.http.get("/account")).ids["current_password"]


def test_a_new_password_ends_the_other_sessions(browser: Browser, api: Api):
    browser.sign_in()
    elsewhere = api.login()
    path = "/account/password"
    refused(act(browser, path, "change", password=NEW), 403, "reauthentication_required")
    refused(act(browser, path, "change", current_password=PASSWORD), 422, "validation_failed")
    weak = refused(
        act(browser, path, "change", current_password=PASSWORD, password="short"), 422, "validation_failed"
    )
    assert weak.texts["error-sentence"] == "Use at least 8 characters."
    assert api.me(elsewhere["access_token"]).status_code == 200
    done = act(browser, path, "change", current_password=PASSWORD, password=NEW)
    assert done.headers["Location"] == "/account/password?done=change"
    assert api.me(elsewhere["access_token"]).status_code == 401
    assert person_of(browser)
    assert api.login(password=NEW)


def test_who_has_a_second_factor_proves_it_for_a_new_password(browser: Browser):
    """OWASP ASVS 7.5.1: a session from long ago is not enough."""
    browser.sign_in()
    rooms = rooms_of(browser.app)
    person, signed_in = person_of(browser)
    app = App(rooms.database.write(lambda tx: rooms.second_factors.apps.enrol(tx, person.id)))
    [code, *_] = rooms.second_factors.confirm_app(person.id, app.code())
    path, known = "/account/password", {"current_password": PASSWORD, "password": NEW}
    assert "required" in shown(browser.http.get(path)).ids["otp"]
    refused(act(browser, path, "change", **known), 403, "second_factor_required")
    refused(act(browser, path, "change", **known, otp="000000"), 403, "invalid_otp")
    assert act(browser, path, "change", **known, otp=code).status_code == 303
    # A recent sign-in with both asks for no code.
    both = update(Session).where(Session.id == signed_in.session_id)
    rooms.database.write(lambda tx: tx.execute(both.values(amr=["pwd", "otp", "mfa"], authenticated_at=utc_now())))
    assert "otp" not in shown(browser.http.get(path)).ids


def test_sessions_are_listed_and_ended(browser: Browser, api: Api, browser_of):
    browser.sign_in()
    path, mine = "/account/sessions", str(person_of(browser)[1].session_id)
    one, other = api.login(), api.login()
    listed = shown(browser.http.get(path))
    assert "this-session" in listed.ids
    ends = [name.removeprefix("end-") for name in listed.ids if name.startswith("end-") and name != "end-others"]
    assert len(ends) == 2
    assert mine not in ends
    stranger = browser_of(browser.app)
    api.register("bob")
    stranger.sign_in(username="bob")
    assert act(stranger, path, "end", session=ends[0]).status_code == 303
    assert [api.me(each["access_token"]).status_code for each in (one, other)] == [200, 200]
    refused(act(browser, path, "end", session="nonsense"), 400, "malformed_request")
    assert act(browser, path, "end", session=str(uuid4())).status_code == 303
    assert act(browser, path, "end", session=ends[0]).status_code == 303
    assert sorted(api.me(each["access_token"]).status_code for each in (one, other)) == [200, 401]
    assert act(browser, path, "end-others").status_code == 303
    assert [api.me(each["access_token"]).status_code for each in (one, other)] == [401, 401]
    assert "end-others" not in shown(browser.http.get(path)).ids
    assert person_of(stranger)


def test_a_consent_is_taken_back(browser: Browser):
    browser.sign_in()
    path, rooms = "/account/applications", rooms_of(browser.app)
    person, _ = person_of(browser)
    assert "no-applications" in shown(browser.http.get(path)).ids
    wanted = Wanted(frozenset({"openid", "posts:create"}), frozenset({"birthdate"}))
    rooms.consents.remember(person.id, "app", wanted)
    text = shown(browser.http.get(path)).texts["applications"]
    for words in ("An <app>", "Write posts", "birthdate", f"{time.gmtime().tm_year}"):
        assert words in text
    assert act(browser, path, "withdraw", client="app").status_code == 303
    assert not rooms.consents.cover(person.id, "app", wanted)
    assert act(browser, path, "withdraw", client="app").status_code == 303  # as it is already
    assert "no-applications" in shown(browser.http.get(path)).ids


@pytest.mark.parametrize("done", ["save", "<script>", "nothing"])
def test_what_an_address_says_was_done_is_one_of_our_sentences_or_nothing(browser: Browser, done: str):
    browser.sign_in()
    page = browser.http.get("/account", query_string={"done": done})
    assert ("done" in shown(page).ids) == (done == "save")
    assert "<script" not in page.text
