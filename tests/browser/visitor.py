"""Somebody at a Chromium that notices whatever is wrong with the pages that they see."""

import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.browser import axe
from tests.browser.site import Site
from tests.live_server import PASSWORD

# Generous: the machine may be busy.
MILLISECONDS: Final = 60_000
DESKTOP: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 390, "height": 844}
NARROW: Final = {"width": 320, "height": 640}  # WCAG 2.2, success criterion 1.4.10
# `make screenshots` wants a picture of every page that is checked.
PICTURES: Final = os.environ.get("TOKENSERVER_TEST_SCREENSHOTS", "")
AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
REFUSED: Final = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


class Visitor:
    """`page`: Playwright's. `faults`: what was wrong so far; `browsers` asserts in the end that nothing was.

    `origins`: beside the server's, where the browser may go.
    """

    def __init__(self, site: Site, context: Any, origins: set[str], *, runs_scripts: bool) -> None:
        self.site = site
        self.page = context.new_page()
        self._origins = origins | {site.origin}
        self._devtools = context.new_cdp_session(self.page)
        self._runs_scripts = runs_scripts
        self._let_scripts_run(runs_scripts)
        self._console: list[tuple[str, str]] = []
        self._faults: list[str] = []
        self._refused: set[str] = set()
        self._shown = 0
        context.on("console", self._hear)
        context.on("weberror", lambda error: self._faults.append(f"error in the page: {error.error}"))
        context.on("request", self._see_request)
        context.on("requestfailed", self._see_failure)
        context.on("response", self._see_response)

    # What goes wrong

    @property
    def faults(self) -> list[str]:
        # A page that is refused with a 4xx is said on the console too; it is what some walks want to see.
        said = [text for text, url in self._console if not (REFUSED.match(text) and url in self._refused)]
        return [*self._faults, *said]

    def forget_faults(self) -> None:
        """For whoever asked for one."""
        self._faults.clear()
        self._console.clear()

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:  # violations of the policy too
            self._console.append((message.text, message.location.get("url", "")))

    def _see_request(self, request: Any) -> None:
        url = request.url
        if urlsplit(url).scheme not in {"data", "blob"} and _origin(url) not in self._origins:
            self._faults.append(f"request to another host: {url}")

    def _see_failure(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # else: left for another page
            self._faults.append(f"request failed: {request.url}: {request.failure}")

    def _see_response(self, response: Any) -> None:
        if response.status >= 400:
            if response.request.is_navigation_request() and response.status < 500:
                self._refused.add(response.url)
            else:
                self._faults.append(f"{response.status} from {response.url}")

    # Doing

    def open(self, path: str) -> Any:
        """`path`: of the server, or an address. The response, or None."""
        return self.page.goto(path if "://" in path else self.site.origin + path)

    def sign_in(self, username: str, password: str = PASSWORD) -> None:
        """Where the page that asks for it is shown."""
        self.page.fill("#username", username)
        self.page.fill("#password", password)
        self.page.click("#login-submit")

    def text(self, selector: str) -> str:
        """Waits for the element."""
        return str(self.page.inner_text(selector)).strip()

    def has(self, selector: str) -> bool:
        return bool(self.page.locator(selector).count())

    def focused(self) -> str:
        """The id of what has the focus."""
        return str(self.page.locator(":focus").get_attribute("id"))

    def landed(self) -> dict[str, str]:
        """What the application was sent, once its page is there."""
        self.page.wait_for_selector("#application")
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def add_authenticator(self) -> None:
        """A passkey's home, which always says yes (WebDriver extension of WebAuthn Level 3)."""
        self._devtools.send("WebAuthn.enable")
        self._devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})

    def _let_scripts_run(self, is_allowed: bool) -> None:
        self._devtools.send("Emulation.setScriptExecutionDisabled", {"value": not is_allowed})

    # Looking

    def check(self, name: str) -> None:
        """The page as it stands: by axe-core, light and dark, and nothing sticks out of a narrow screen.

        `name`: of the page and its state, for its picture.
        """
        page = self.page
        page.wait_for_load_state()
        # What scripts the page has were passed over when it was loaded.
        self._let_scripts_run(True)
        world = axe.World(self._devtools)
        axe.prepare(world)
        page.emulate_media(color_scheme="light")
        found = axe.violations(world)
        page.emulate_media(color_scheme="dark")
        found += [f"dark: {each}" for each in axe.violations(world, "cat.color")]
        page.emulate_media(color_scheme="light")
        size = page.viewport_size
        page.set_viewport_size(NARROW)
        width = world.run("document.documentElement.scrollWidth")
        page.set_viewport_size(size)
        self._let_scripts_run(self._runs_scripts)
        if width > NARROW["width"]:
            found.append(f"at {NARROW['width']} px it is {width} px wide")
        assert not found, f"{name}, {page.url}:\n" + "\n".join(found)
        self._shown += 1
        if PICTURES:
            self._picture(name, size)

    def _picture(self, name: str, size: Any) -> None:
        for device, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            self.page.set_viewport_size(viewport)
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                path = Path(PICTURES, f"{name}-{device}-{scheme}.png")
                self.page.screenshot(path=path, full_page=True, animations="disabled", caret="hide")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(size)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
