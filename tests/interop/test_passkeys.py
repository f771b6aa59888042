"""Second factors in Chromium, whose virtual authenticator stands for the user's: one walk through the pages."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import unavailable
from tests.live_server import PASSWORD, LiveServer
from tests.totp import App, decoded

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--no-proxy-server")
SECONDS = 60
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Passkeys need a name, and localhost is the one that needs no https."""
    running = LiveServer.at(tmp_path, workers="1")
    running.environment["TOKENSERVER_ISSUER"] = running.url.replace("127.0.0.1", "localhost")
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def page() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        unavailable("passkeys are not tested in a browser: there is no chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=[*FLAGS])
        context = browser.new_context()
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        devtools = context.new_cdp_session(page)
        devtools.send("WebAuthn.enable")
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
        yield page
        browser.close()


def sign_out(page: Any, origin: str) -> None:
    page.goto(f"{origin}/login")
    page.click("#sign-out")
    page.wait_for_selector("#signed-out")


def by_password(page: Any) -> None:
    page.fill("#username", "ann")
    page.fill("#password", PASSWORD)
    page.click("#login-submit")


def test_an_app_and_then_a_passkey(server: LiveServer, page: Any):
    origin = server.environment["TOKENSERVER_ISSUER"]
    server.post("/auth/register", 201, json={"username": "ann", "email": "ann@example.org", "password": PASSWORD})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)

    page.goto(f"{origin}/account/security")
    by_password(page)
    page.click("#begin-app")
    app = App(decoded(page.inner_text("#totp-secret").replace(" ", "")))
    assert page.locator("#qr-code svg").bounding_box()["width"] > 100
    page.fill("#otp", app.code())
    page.click("#otp-submit")
    assert len(page.inner_text("#recovery-codes").split()) == 10
    sign_out(page, origin)

    page.goto(f"{origin}/account/security")
    by_password(page)
    page.fill("#otp", app.code())
    page.click("#login-submit")
    page.fill("#passkey-name", "Blue key")
    page.click("#passkey-submit")
    page.wait_for_selector("#passkeys")
    assert "Blue key" in page.inner_text("#passkeys")
    sign_out(page, origin)

    page.goto(f"{origin}/login")
    page.click("#passkey-submit")
    page.wait_for_selector("#signed-in-as")
    assert page.inner_text("#signed-in-as") == "ann"
    sign_out(page, origin)

    page.goto(f"{origin}/login")
    by_password(page)
    page.click("#passkey-submit")
    page.wait_for_selector("#signed-in-as")
    # The policy stopped nothing that the pages want.
    assert said == []
