"""Every shell block of the tutorials is pasted, in order, into one shell, and prints what the page says."""

import re
from functools import partial

import httpx
import pytest

from tests.docs.fences import ROOT
from tests.docs.pasting import blocks, keeps, paste
from tests.live_server import serving
from tests.person import Person

PAGES = ["first-ten-minutes.md", "grants.md"]

SIGN_IN = re.compile(r"Open (\S+redirect_uri=([^&]+)\S+)\nand sign in as (\w+) with: (.+)\n")
DEVICE = re.compile(r"Open (\S+) and type (\S+), as (\w+)\n")


def follow(url, printed):
    """What the reader is told to do in a browser."""
    if found := SIGN_IN.search(printed):
        address, redirect_uri, name, password = found.groups()
        landing = Person.at(url, name, password).authorize(address, redirect_uri)
        assert httpx.get(landing.url, trust_env=False, timeout=30).status_code == 200
    if found := DEVICE.search(printed):
        address, code, name = found.groups()
        assert Person.at(url, name).connect(address, code).status == 200


@pytest.fixture(scope="module")
def server():
    """With a grace that a slow machine doesn't outlast between two commands of one block."""
    with serving(refresh_grace="60s") as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_print_what_the_page_says(page, server):
    pairs = paste(ROOT / "docs" / page, server, partial(follow, server.url))
    assert len(pairs) >= 6
    for promised, printed in pairs:
        assert keeps(promised, printed), f"promised:\n{promised}\nprinted:\n{printed}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_say_what_is_printed(page):
    assert sum(bool(promised) for _, promised in blocks(ROOT / "docs" / page)) >= 5


def test_what_is_promised_and_not_printed_is_noticed():
    assert keeps("good: …\nrefused\n", "good: posts:create ('user',)\nrefused\n")
    assert not keeps("good: …\nrefused\n", "good: posts:create\n")
    assert not keeps("200\n", "200\n401\n")
    assert not keeps("", "an error\n")
