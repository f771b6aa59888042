"""`/register`: by the rules of `POST /auth/register`."""

from tests.conftest import PASSWORD, Api, Apps
from tests.pages.conftest import Browser, refused, shown
from tokenserver.app import rooms_of
from tokenserver.config import Rate

BOB = {"username": "bob", "email": "bob@example.org", "password": PASSWORD}


def test_who_registers_is_signed_in_and_goes_on(browser: Browser, api: Api):
    interaction = browser.begin()
    sign_in = browser.http.get(f"/login?interaction={interaction.id}")
    assert shown(sign_in).ids["register"]["href"] == f"/register?interaction={interaction.id}"
    page = browser.http.get(f"/register?interaction={interaction.id}")
    assert shown(page).texts["client-name"] == "An <app>"
    done = browser.send(page, **BOB, name="Bob")
    assert (done.status_code, done.headers["Location"]) == (303, interaction.resume)
    assert rooms_of(browser.app).browser_sessions.find(browser.session)
    me = api.me(api.login("bob")["access_token"]).json
    assert (me["name"], me["roles"], me["email_verified"]) == ("Bob", ["user"], False)


def test_what_is_wrong_is_said_at_its_field(browser: Browser):
    page = browser.http.get("/register")
    taken = refused(browser.send(page, **BOB | {"username": "ann"}), 409, "username_taken")
    assert taken.ids["username"]["aria-invalid"] == "true"
    assert taken.ids["email"]["value"] == "bob@example.org"
    assert "value" not in taken.ids["password"]
    wrong = refused(browser.send(page, username="!", email="x", name="a\nb"), 422, "validation_failed")
    assert {"username-fault", "email-fault", "password-fault"} & wrong.ids.keys()
    assert browser.session is None


def test_a_closed_registration_is_closed_here_too(apps: Apps, browser_of, api: Api):
    browser = browser_of(apps(registration="closed"))
    assert "register" not in shown(browser.http.get("/login")).ids
    page = browser.http.get("/register")
    assert "registration-closed" in shown(page, 403).ids
    csrf = shown(browser.http.get("/login")).fields["csrf"]
    answer = browser.http.post("/register", data=BOB | {"csrf": csrf})
    assert "registration-closed" in shown(answer, 403).ids
    assert api.http.post("/auth/login", json={"login": "bob", "password": PASSWORD}).status_code == 401


def test_a_limit_is_told(apps: Apps, browser_of):
    browser = browser_of(apps(limit_register=Rate(1, 86400)))
    assert browser.send(browser.http.get("/register"), **BOB).status_code == 303
    other = browser_of(browser.app)
    page = other.send(other.http.get("/register"), **BOB | {"username": "eve", "email": "eve@example.org"})
    refused(page, 429, "too_many_requests")
    assert int(page.headers["Retry-After"]) > 0
