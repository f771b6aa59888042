"""RFC 8628 section 3.3: the page `/device`, as a person without JavaScript walks it."""

from typing import Any

import pytest
from flask import Flask

from tests.answers import granted, refused
from tests.conftest import Api
from tests.person import Page, Person
from tokenserver.rooms import Rooms

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture(autouse=True)
def tv(rooms: Rooms) -> None:
    rooms.clients.create(
        client_id="tv",
        client_name="A <television>",
        grant_types=[DEVICE_CODE],
        scope=["openid", "posts:create"],
        token_endpoint_auth_method="none",
        first_party=True,  # the user is asked nevertheless
    )


def begin(api: Api) -> dict[str, Any]:
    form = {"client_id": "tv", "scope": "openid posts:create"}
    return granted(api.http.post("/oauth/device_authorization", data=form))


def poll(api: Api, codes: dict[str, Any]) -> Any:
    return api.token(grant_type=DEVICE_CODE, device_code=codes["device_code"], client_id="tv")


def person(app: Flask, api: Api, name: str) -> Person:
    api.register(name)
    return Person.on(app.test_client(), "http://127.0.0.1:8000", name)


def page(found: Any) -> Page:
    assert isinstance(found, Page)
    return found


def entered(who: Person, codes: dict[str, Any]) -> Page:
    """As far as the question, by way of the sign-in."""
    form = who.page(codes["verification_uri_complete"])
    found = page(who.press(form, "device-submit"))
    assert found.form_with("login-submit")
    found = page(who.press(found, "login-submit"))
    # The code came along, and waits for the user again.
    assert ("user_code", codes["user_code"]) in found.forms[0].fields
    return page(who.press(found, "device-submit"))


def test_a_person_allows_a_device(app: Flask, api: Api):
    ann, codes = person(app, api, "ann"), begin(api)
    asked = entered(ann, codes)
    for shown in (
        "A &lt;television&gt;",
        codes["user_code"],
        "device-warning",
        "Know that you are the same person",
    ):
        assert shown in asked.text
    assert "frame-ancestors 'none'" in asked.headers["Content-Security-Policy"]
    assert asked.headers["Cache-Control"] == "no-store"
    refused(poll(api, codes), 400, "authorization_pending")  # nothing is allowed before the button
    assert "device-allowed" in page(ann.press(asked, "consent-allow")).text
    answer = granted(poll(api, codes))
    assert granted(api.me(answer["access_token"]))["username"] == "ann"
    again = page(ann.press(asked, "consent-allow"))
    assert (again.status, "device_not_found" in again.text) == (404, True)


def test_a_person_denies_a_device(app: Flask, api: Api):
    ann, codes = person(app, api, "ann"), begin(api)
    asked = entered(ann, codes)
    assert "device-denied" in page(ann.press(asked, "consent-deny")).text
    assert page(ann.press(asked, "consent-allow")).status == 404
    refused(poll(api, codes), 400, "access_denied")


def test_the_answer_of_somebody_else_or_of_no_form_of_ours_is_refused(app: Flask, api: Api):
    """Section 5.4; F4."""
    ann, eve, codes = person(app, api, "ann"), person(app, api, "eve"), begin(api)
    hers = entered(ann, codes)
    other = entered(eve, begin(api))
    # Eve's form is good, but she hasn't entered this code.
    assert page(eve.press(other, "consent-allow", user_code=codes["user_code"])).status == 404
    for csrf in ("x", "a" * 43, dict(other.forms[0].fields)["csrf"]):
        found = page(ann.press(hers, "consent-allow", csrf=csrf))
        assert (found.status, "csrf_failed" in found.text) == (403, True)
    for wrong in ("", "1", "0", "true", "ALLOW"):
        hers.forms[0].buttons[0].value = wrong
        assert "device-allowed" not in page(ann.press(hers, "consent-allow")).text
    refused(poll(api, codes), 400, "authorization_pending")


def test_wrong_codes_are_told_and_throttled(app: Flask, api: Api):
    """Section 5.1; F3. Nobody who isn't signed in learns whether a code is good."""
    ann, codes = person(app, api, "ann"), begin(api)
    entered(ann, codes)
    form = ann.page("/device")
    statuses = [page(ann.press(form, "device-submit", user_code="BBBB-BBBB")).status for _ in range(12)]
    assert statuses == [400] * 10 + [429] * 2
    assert page(ann.press(form, "device-submit", user_code=codes["user_code"])).status == 429
    guest = Person.on(app.test_client(), "http://127.0.0.1:8000", "nobody")
    for code in (codes["user_code"], "BBBB-BBBB"):
        found = page(guest.press(guest.page("/device"), "device-submit", user_code=code))
        assert (found.status, bool(found.form_with("login-submit"))) == (200, True)
