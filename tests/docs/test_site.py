"""The documentation as a site: it is built without a warning, whole, and asks nobody else for anything."""

import http.server
import re
import subprocess
import sys
import threading
from functools import partial

import pytest

from tests.chromium import started
from tests.docs.fences import DOCUMENTS, ROOT

SOURCE = ROOT / "docs" / "site"
OUTSIDE = {"README.md": "index", "CHANGELOG.md": "changelog", "SECURITY.md": "security", "keys/README.md": "keys"}
SECONDS = 60


def run(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of its pages."""
    folder = tmp_path_factory.mktemp("site")
    done = run(SOURCE / "build.py", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "site"


def page(document):
    """The name of a document's page in the site."""
    path = document.relative_to(ROOT).as_posix()
    return OUTSIDE.get(path) or document.relative_to(ROOT / "docs").with_suffix("").as_posix()


def test_every_document_is_a_page_that_the_navigation_leads_to(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    decisions = (site / "adr" / "index.html").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        name = page(document)
        assert (site / f"{name}.html").is_file(), name
        folder, _, last = name.rpartition("/")
        assert (
            f'href="{last}.html"' in decisions
            if folder == "adr"
            else name == "index" or f'href="{name}.html"' in index
        )


def test_no_page_asks_another_host(site):
    """Scripts, styles, images and fonts; links that somebody follows are free."""
    html = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href|srcset)=[\"']?(?:https?:)?//[^>]*>")
    styles = re.compile(r"(?:@import|url\()[^;)]*//[^;)]*")
    asked = {
        str(path.relative_to(site)): found
        for path in site.rglob("*")
        if path.suffix in {".html", ".css"}
        and (found := (html if path.suffix == ".html" else styles).findall(path.read_text(encoding="utf-8")))
    }
    assert asked == {}


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path):
    (tmp_path / "index.md").write_text("# One\n\n[two](#two)\n", encoding="utf-8")
    command = ["-m", "sphinx", "--fail-on-warning", "--quiet", "--conf-dir", SOURCE, tmp_path, tmp_path / "site"]
    done = run(*command)
    assert done.returncode != 0
    assert "'two'" in done.stderr
    (tmp_path / "index.md").write_text("# One\n\n[one](#one)\n", encoding="utf-8")
    assert run(*command).returncode == 0


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_search_finds_pages_by_itself(address):
    with started("the search of the documentation is not tested") as browser:
        from playwright.sync_api import expect

        tab = browser.new_page()
        asked, said = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(f"{address}/index.html")
        tab.get_by_placeholder("Search").first.fill("fast-forward")
        tab.keyboard.press("Enter")
        found = tab.locator("#search-results a", has_text="Refresh tokens").first
        expect(found).to_be_visible(timeout=SECONDS * 1000)
        found.click()
        expect(tab.get_by_role("heading", level=1)).to_contain_text("Refresh tokens", timeout=SECONDS * 1000)
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert said == []
