"""What people do with their own account."""

from tests.conftest import PASSWORD

NEW = "another horse 8 battery"


def test_profile(browsers, site):
    visitor = browsers()
    username = site.somebody(name="Ann")
    visitor.open("/account")
    visitor.sign_in(username)
    assert visitor.text("#signed-in-as") == username
    visitor.check("account")
    visitor.page.fill("#name", "Ann Archer")
    visitor.page.click("#profile-submit")
    visitor.page.wait_for_selector("#done")
    assert visitor.page.input_value("#name") == "Ann Archer"
    visitor.check("account-saved")

    # Another address takes the password, and is not theirs until they say so.
    address = f"new-{username}@example.org"
    visitor.page.fill("#email", address)
    visitor.page.click("#profile-submit")
    assert visitor.text("#error-code") == "reauthentication_required"
    visitor.check("account-refused")
    visitor.page.fill("#current_password", PASSWORD)
    visitor.page.click("#profile-submit")
    assert address in visitor.text("#email-unverified")
    link = site.letter(address, r"http\S+/verify-email\?\S+")[0]
    visitor.open(link)
    visitor.check("verify-email")
    visitor.page.click("#verify-submit")
    visitor.page.wait_for_selector("#verify-done")
    visitor.check("verify-email-done")
    visitor.open("/account")
    assert address in visitor.text("#email-verified")


def test_a_new_password_ends_the_other_sessions(browsers, site):
    here, there = browsers(), browsers()
    username = site.somebody()
    for visitor in (here, there):
        visitor.open("/account/password")
        visitor.sign_in(username)
        visitor.page.wait_for_selector("#password-submit")
    here.check("account-password")
    here.page.fill("#current_password", "wrong password")
    here.page.fill("#password", NEW)
    here.page.click("#password-submit")
    assert here.text("#error-code") == "invalid_credentials"
    here.check("account-password-refused")
    here.page.fill("#current_password", PASSWORD)
    here.page.fill("#password", NEW)
    here.page.click("#password-submit")
    here.page.wait_for_selector("#done")
    there.open("/account/password")
    assert there.has("#login-submit")
    there.sign_in(username, NEW)
    there.page.wait_for_selector("#password-submit")


def test_a_session_is_ended_and_then_all_others(browsers, site):
    here, there, elsewhere = (browsers() for _ in range(3))
    username = site.somebody()
    for visitor in (here, there):
        visitor.open("/account/sessions")
        visitor.sign_in(username)
        visitor.page.wait_for_selector("#sessions")
    there.open("/account/sessions")
    assert there.page.locator("#sessions > li").count() == 2
    there.check("account-sessions")
    there.page.click("#sessions > li:not(:has(#this-session)) button")
    there.page.wait_for_selector("#done")
    assert there.page.locator("#sessions > li").count() == 1
    here.open("/account/sessions")
    assert here.has("#login-submit")

    for visitor in (here, elsewhere):
        visitor.open("/account/sessions")
        visitor.sign_in(username)
        visitor.page.wait_for_selector("#sessions")
    there.open("/account/sessions")
    there.page.click("#end-others")
    there.page.wait_for_selector("#done")
    assert there.page.locator("#sessions > li").count() == 1
    for visitor in (here, elsewhere):
        visitor.open("/account")
        assert visitor.has("#login-submit")


def test_consent_is_withdrawn(browsers, site, client_id):
    visitor = browsers()
    username = site.somebody()
    visitor.open("/account/applications")
    visitor.sign_in(username)
    visitor.page.wait_for_selector("#no-applications")
    visitor.check("account-no-applications")
    visitor.open(site.authorization_request(client_id))
    visitor.page.click("#consent-allow")
    tokens = site.tokens(client_id, visitor.landed()["code"])
    visitor.open("/account/applications")
    assert "Wattle Garden Notes" in visitor.text("#applications")
    visitor.check("account-applications")
    visitor.page.click("#withdraw-1")
    visitor.page.wait_for_selector("#no-applications")
    assert site.get("/oauth/userinfo", tokens["access_token"]).status_code == 401
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": tokens["refresh_token"]}
    assert site.server.post("/oauth/token", 400, data=form)["error"] == "invalid_grant"


def test_a_forgotten_password(browsers, site):
    visitor = browsers()
    username = site.somebody()
    visitor.open("/login")
    visitor.page.click("#forgot-password")
    visitor.page.wait_for_selector("#forgot-submit")
    visitor.check("forgot-password")
    visitor.page.fill("#email", f"{username}@example.org")
    visitor.page.click("#forgot-submit")
    visitor.page.wait_for_selector("#forgot-done")
    visitor.check("forgot-password-done")
    link = site.letter(f"{username}@example.org", r"http\S+/reset-password\?\S+")[0]
    visitor.open(link)
    visitor.check("reset-password")
    visitor.page.fill("#password", username)
    visitor.page.click("#reset-submit")
    assert visitor.text("#error-code") == "validation_failed"
    visitor.check("reset-password-refused")
    visitor.page.fill("#password", NEW)
    visitor.page.click("#reset-submit")
    visitor.page.wait_for_selector("#reset-done")
    visitor.check("reset-password-done")
    visitor.open(link)
    assert visitor.text("#error-code") == "link_not_found"
    visitor.check("dead-link")
    visitor.open("/login")
    visitor.sign_in(username, NEW)
    assert visitor.text("#signed-in-as") == username
    visitor.page.click("#sign-out")
    visitor.page.wait_for_selector("#signed-out")
    visitor.check("signed-out")


def test_what_goes_wrong_is_told(browsers, site):
    visitor = browsers()
    visitor.open("/oauth/authorize?client_id=nobody")
    assert visitor.text("#error-code") == "invalid_request"
    visitor.check("oauth-error")
    visitor.open("/login?interaction=unknown")
    assert visitor.text("#error-code") == "interaction_not_found"
    visitor.check("error")
    visitor.open("/oauth/logout")
    visitor.check("sign-out")
