"""OpenID Connect Front-Channel Logout 1.0: the signed-out page embeds a page of each client that took part."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.oidc.browser import Browser, register
from tests.person import Page
from tokenserver.app import rooms_of
from tokenserver.tokens.sessions import EndReason

BACK = "https://shop.example/bye?kept=1"
RUN = Path(__file__).with_name("signed_out.mjs")
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def browser(app, api):
    api.register()
    register(
        app,
        "shop",
        post_logout_redirect_uris=[BACK],
        frontchannel_logout_uri="https://shop.example/gone?own=1",
        frontchannel_logout_session_required=True,
    )
    register(app, "forum", frontchannel_logout_uri="https://forum.example/gone")
    register(app, "absent", frontchannel_logout_uri="https://absent.example/gone")
    register(app, "quiet")
    return Browser.of(app).sign_in("shop", "forum", "quiet")


def signed_out(browser, **parameters):
    query = urlencode({"id_token_hint": browser.id_token("shop")} | parameters)
    found = browser.person.visit(f"/oauth/logout?{query}", BACK)
    assert not browser.is_signed_in()
    return found


def test_page_embeds_who_took_part_and_nobody_else(app, browser):
    """Sections 2 and 3; the policy lets in the origins of these and runs one script."""
    page = signed_out(browser, post_logout_redirect_uri=BACK, state="s")
    assert isinstance(page, Page)
    assert page.status == 200
    shop, forum = page.frames
    # What was registered stays; iss and sid for who wants them, and nothing else.
    assert shop.startswith("https://shop.example/gone?own=1&")
    issuer = rooms_of(app).settings.issuer
    assert parse_qsl(urlsplit(shop).query) == [("own", "1"), ("iss", issuer), ("sid", str(browser.session_id))]
    assert forum == "https://forum.example/gone"
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    assert policy["frame-src"].split() == ["https://forum.example", "https://shop.example"]
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
    nonce = re.search(r'<script nonce="([^"]+)">', page.text)[1]
    assert policy["script-src"] == f"'nonce-{nonce}'"
    assert page.headers["Cache-Control"] == "no-store"
    # A way on for who has no JavaScript.
    assert BACK + "&state=s" in page.links


def test_page_goes_on_when_all_have_loaded_or_after_three_seconds(browser):
    if not shutil.which("node"):
        if os.environ.get("CI") == "true":
            pytest.fail("there is no node on the path")
        pytest.skip("the script of the signed-out page is not run: there is no node on the path")
    page = signed_out(browser, post_logout_redirect_uri=BACK)
    script = re.search(r"<script nonce[^>]*>(.*?)</script>", page.text, re.DOTALL)[1]

    def gone(*steps):
        asked = json.dumps({"script": script, "href": BACK, "steps": steps})
        done = subprocess.run(["node", RUN], input=asked, capture_output=True, text=True, timeout=120, check=True)
        return json.loads(done.stdout)

    assert gone() == []
    assert gone("load") == gone("timer of 3000") == gone("load", "timer of 3000") == [BACK]


def test_page_without_a_way_back_embeds_them_too(browser):
    page = signed_out(browser)
    assert len(page.frames) == 2
    assert "<script" not in page.text


def test_who_took_part_in_another_session_is_not_embedded(app, browser):
    """Nor is anybody when there was no session to end: a session ended otherwise has only its back channel."""
    Browser.of(app).sign_in("absent")
    rooms = rooms_of(app)
    ended = {"session_id": browser.session_id, "reason": EndReason.REVOKED}
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, **ended))
    page = signed_out(browser)
    assert (page.status, page.frames) == (200, [])


def test_nothing_stands_in_between_where_nobody_wants_a_page(app, browser):
    alone = Browser.of(app).sign_in("quiet")
    query = urlencode({"id_token_hint": alone.id_token("shop"), "post_logout_redirect_uri": BACK})
    answer = alone.open(f"/oauth/logout?{query}")
    assert (answer.status_code, answer.headers["Location"]) == (303, BACK)
    assert browser.is_signed_in()
