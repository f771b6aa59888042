"""Debian's Chromium, driven by Playwright. It asks nothing of any other host."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.redis_servers import unavailable

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


@contextmanager
def started(untested: str, *flags: str) -> Iterator[Any]:
    """`untested`: what isn't, where there is no Chromium. While it runs, nobody can start an event loop."""
    path = shutil.which("chromium")
    if path is None:
        unavailable(f"{untested}: there is no chromium on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS, *flags])
        yield browser
        browser.close()
