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
from typing import Any

import pytest

from tests.browser import application
from tests.browser.site import Site
from tests.browser.visitor import DESKTOP, MILLISECONDS, Visitor
from tests.chromium import started
from tests.live_server import LiveServer
from tests.smtp_server import SmtpServer


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
    with started("the pages are not seen by a browser") as browser:
        yield browser


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
