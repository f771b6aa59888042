"""Second factors, and passkeys by Chromium's virtual authenticator, which stands for the user's."""

from tests.totp import App, decoded


def sign_out(visitor):
    visitor.open("/account")
    visitor.page.click("#sign-out")
    visitor.page.wait_for_selector("#signed-out")


def test_an_app_and_then_a_passkey(browsers, site):
    visitor = browsers()
    visitor.add_authenticator()
    page = visitor.page
    username = site.somebody()
    visitor.open("/account/security")
    visitor.sign_in(username)
    page.wait_for_selector("#begin-app")
    visitor.check("account-security")
    page.click("#begin-app")
    app = App(decoded(visitor.text("#totp-secret").replace(" ", "")))
    assert page.locator("#qr-code svg").bounding_box()["width"] > 100
    visitor.check("account-app")
    page.fill("#otp", app.code())
    page.click("#otp-submit")
    assert len(visitor.text("#recovery-codes").split()) == 10
    visitor.check("account-codes")
    sign_out(visitor)

    visitor.open("/account/security")
    visitor.sign_in(username)
    page.wait_for_selector("#signing-in-as")
    visitor.check("second-step")
    page.fill("#otp", "000000")
    page.click("#login-submit")
    assert visitor.text("#error-code") == "invalid_otp"
    visitor.check("second-step-refused")
    page.fill("#otp", app.code())
    page.click("#login-submit")
    page.fill("#passkey-name", "Blue key")
    page.click("#passkey-submit")
    page.wait_for_selector("#passkeys")
    assert "Blue key" in visitor.text("#passkeys")
    visitor.check("account-security-with-passkey")
    sign_out(visitor)

    visitor.open("/login")
    page.click("#passkey-submit")
    assert visitor.text("#signed-in-as") == username
    sign_out(visitor)

    visitor.open("/login")
    visitor.sign_in(username)
    page.click("#passkey-submit")
    assert visitor.text("#signed-in-as") == username
