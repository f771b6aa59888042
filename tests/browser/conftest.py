"""Chromium, a live server, and visitors who notice whatever is wrong with a page.

`browsers()` gives a visitor (`tests/browser/visitor.py`) with a browser of their own. In the end the test fails on
anything that the console called an error or a warning, on violations of a page's policy, on errors in scripts, on
requests to other hosts and on whatever couldn't be loaded. `visitor.check("name")` asks axe-core about a page.
"""

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.browser import application
from tests.browser.site import Site
from tests.browser.visitor import DESKTOP, MILLISECONDS, Visitor
from tests.interop.conftest import unavailable
from tests.live_server import LiveServer
from tests.smtp_server import SmtpServer

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # Whatever the watch should miss, it gets nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """One for all walks: each has people and clients of its own."""
    mail = SmtpServer(socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=mail.serve, daemon=True).start()
    folder = Path(tempfile.mkdtemp(prefix="ts-live-"))
    options = {"workers": "1", "smtp_url": f"smtp://127.0.0.1:{mail.port}?starttls=off"}
    server = LiveServer.at(folder, mail_sender="accounts@example.org", **options)
    origin = server.environment["TOKENSERVER_ISSUER"] = server.url.replace("127.0.0.1", "localhost")
    with application.serving() as other:
        try:
            server.start()
            yield Site(server, origin, other, mail)
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                mail.socket.shutdown(socket.SHUT_RDWR)
            mail.socket.close()


# Not of the session: while Playwright runs, a test can't start an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        unavailable("the pages are not seen by a browser: there is no chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def browsers(site: Site, chromium: Any) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors. `locale`: what the browser asks for. `scripts`: whether it runs any. `origins`: where it may
    go beside the server and the application."""
    made: list[tuple[Any, Visitor]] = []

    def make(*, locale: str = "en-US", scripts: bool = True, origins: tuple[str, ...] = ()) -> Visitor:
        context = chromium.new_context(locale=locale, viewport=DESKTOP, color_scheme="light", timezone_id="UTC")
        context.set_default_timeout(MILLISECONDS)
        visitor = Visitor(site, context, {site.application.origin, *origins}, runs_scripts=scripts)
        made.append((context, visitor))
        return visitor

    yield make
    faults = [fault for _, visitor in made for fault in visitor.faults]
    for context, _ in made:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def client_id(site: Site) -> str:
    """The application."""
    return str(site.client()["client_id"])


@pytest.fixture
def visitor(browsers: Callable[..., Visitor]) -> Visitor:
    return browsers()
