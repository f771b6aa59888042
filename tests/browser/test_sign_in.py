"""Signing in, consenting and denying, as a person does it, with scripts and without."""

import pytest


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_into_an_application(browsers, site, client_id, scripts):
    visitor = browsers(scripts=scripts)
    username = site.somebody()
    visitor.open(site.authorization_request(client_id))
    visitor.check("sign-in")
    visitor.sign_in(username, "wrong password")
    assert visitor.text("#error-code") == "invalid_credentials"
    assert visitor.page.title() == "Error: Sign in"
    visitor.check("sign-in-refused")
    visitor.sign_in(username)
    assert visitor.text("#client-name") == "Wattle Garden Notes"
    assert visitor.text("#signed-in-as") == username
    visitor.check("consent")
    visitor.page.click("#consent-allow")
    assert visitor.landed().keys() >= {"code", "state"}

    visitor.open(site.authorization_request(client_id))
    visitor.page.click("#consent-deny")
    assert visitor.landed()["error"] == "access_denied"


def test_by_the_keyboard_alone(browsers, site, client_id):
    visitor = browsers()
    username = site.somebody()
    visitor.open(site.authorization_request(client_id))
    keyboard = visitor.page.keyboard
    visitor.page.wait_for_selector("#username:focus")  # a browser gives it when it has drawn the page
    keyboard.type(username)
    keyboard.press("Tab")
    keyboard.type("correct horse 7 battery")
    keyboard.press("Enter")
    visitor.page.wait_for_selector("#consent-allow")
    keyboard.press("Tab")
    while visitor.focused() != "consent-allow":
        keyboard.press("Tab")
    keyboard.press("Enter")
    assert "code" in visitor.landed()

    visitor.open("/account")
    keyboard.press("Tab")
    assert visitor.page.locator(".skip").bounding_box()["y"] >= 0
    keyboard.press("Enter")
    assert visitor.page.url.endswith("#content")


def test_who_has_no_account_makes_one_on_the_way(browsers, site, client_id):
    visitor = browsers()
    visitor.open(site.authorization_request(client_id))
    visitor.page.click("#register")
    visitor.page.wait_for_selector("#register-submit")
    visitor.check("register")
    visitor.page.fill("#email", "admin@localhost")
    visitor.page.fill("#username", "admin")
    visitor.page.fill("#password", "password1")
    visitor.page.click("#register-submit")
    assert "most common" in visitor.text("#password-fault") or visitor.has("#error-sentence")
    visitor.check("register-refused")
    username = site.new_name()
    visitor.page.fill("#email", f"{username}@example.org")
    visitor.page.fill("#username", username)
    visitor.page.fill("#name", "Ann Archer")
    visitor.page.fill("#password", "correct horse 7 battery")
    visitor.page.click("#register-submit")
    assert visitor.text("#signed-in-as") == username
    visitor.page.click("#consent-allow")
    assert "code" in visitor.landed()


def test_a_device_is_connected_and_another_is_denied(browsers, site):
    visitor = browsers()
    client = site.client(
        client_name="The television",
        grant_types=["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        redirect_uris=[],
        response_types=[],
    )
    username = site.somebody()

    def begun() -> dict[str, str]:
        form = {"client_id": client["client_id"], "scope": "openid profile"}
        return site.server.post("/oauth/device_authorization", data=form)

    visitor.open("/device")
    visitor.page.fill("#user_code", "XXXX-XXXX")
    visitor.page.click("#device-submit")
    visitor.sign_in(username)
    visitor.page.click("#device-submit")
    assert visitor.text("#error-code") == "device_not_found"
    visitor.check("device-unknown")
    first = begun()
    visitor.page.fill("#user_code", first["user_code"])
    visitor.check("device")
    visitor.page.click("#device-submit")
    assert visitor.text("#client-name") == "The television"
    visitor.check("device-confirm")
    visitor.page.click("#consent-allow")
    visitor.page.wait_for_selector("#device-allowed")
    visitor.check("device-connected")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": first["device_code"],
        "client_id": client["client_id"],
    }
    assert site.server.post("/oauth/token", data=form)["access_token"]

    second = begun()
    visitor.open(second["verification_uri_complete"])
    visitor.page.click("#device-submit")
    visitor.page.click("#consent-deny")
    visitor.page.wait_for_selector("#device-denied")
    visitor.check("device-denied")
    refused = site.server.post("/oauth/token", 400, data=form | {"device_code": second["device_code"]})
    assert refused["error"] == "access_denied"
