"""OpenID Connect Session Management 1.0: a client's page asks whether the user is still signed in."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from uuid import uuid4

import pytest

from tokenserver.oauth.session_state import browser_state, origin_of, session_state

IFRAME = "/oauth/check_session"
RUN = Path(__file__).with_name("check_session.mjs")
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def ask():
    """What the page's script answers to messages in a browser with this cookie."""
    if not shutil.which("node"):
        if os.environ.get("CI") == "true":
            pytest.fail("there is no node on the path")
        pytest.skip("the check_session iframe is not run: there is no node on the path")

    def run(page, cookie, *messages):
        asked = {
            "script": re.search(r"<script>(.*)</script>", page, re.DOTALL)[1],
            "name": re.search(r'data-cookie="([^"]*)"', page)[1],
            "cookie": cookie,
            "messages": [{"data": data, "origin": origin} for data, origin in messages],
        }
        done = subprocess.run(
            ["node", RUN], input=json.dumps(asked), capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(done.stdout)

    return run


def test_iframe_tells_who_is_signed_in(app, ask):
    """Sections 3.2 and 3.3."""
    page = app.test_client().get(IFRAME)
    name = re.search(r'data-cookie="([^"]*)"', page.text)[1]
    here, other = browser_state(uuid4()), browser_state(uuid4())
    state = session_state("shop", "https://shop.example/cb?a=b", here)
    origin = "https://shop.example"
    question = (f"shop {state}", origin)
    assert ask(page.text, f"a=b; {name}={here}; c=d", question) == [["unchanged", origin]]
    # Somebody else signed in, or nobody is; a cookie of another name is no answer.
    for cookie in (f"{name}={other}", "", f"x{name}={here}"):
        assert ask(page.text, cookie, question) == [["changed", origin]]
    answers = ask(
        page.text,
        f"{name}={here}",
        (f"forum {state}", origin),  # another client's
        (f"shop {state}", "https://shop.example:8443"),  # a page of another origin
        ("shop", origin),
        (f"shop {state} more", origin),
        (f"shop {state.partition('.')[0]}", origin),
        ("", origin),
        ({"a": 1}, origin),
        (f"shop {state}", "null"),  # no page of the web: there is nobody to answer to
    )
    assert answers == [
        *[["changed", origin], ["changed", "https://shop.example:8443"]],
        *[["error", origin]] * 5,
        None,
    ]
    # Every length of the message around the ends of a block.
    clients = ["x" * length + "é" for length in range(1, 80)]
    questions = [(f"{client} {session_state(client, origin, here)}", origin) for client in clients]
    assert ask(page.text, f"{name}={here}", *questions) == [["unchanged", origin]] * len(clients)


def test_iframe_may_be_embedded_by_anybody_and_do_nothing_else(app):
    response = app.test_client().get(IFRAME)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    script = re.search(r"<script>(.*)</script>", response.text, re.DOTALL)[1]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "frame-ancestors": "*",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "X-Frame-Options" not in response.headers
    assert "Set-Cookie" not in response.headers
    fresh = app.test_client().get(IFRAME, headers={"If-None-Match": response.headers["ETag"]})
    assert fresh.status_code == 304


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        ("https://shop.example/cb", "https://shop.example"),
        ("https://Shop.Example:443?x=y", "https://shop.example"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:8080/cb", "http://[::1]:8080"),
        ("https://shop.example:80/", "https://shop.example:80"),
        ("com.example.app:/cb", "null"),
    ],
)
def test_origin_is_what_browsers_call_it(uri, origin, backend):
    """RFC 6454 section 6.1."""
    del backend
    assert origin_of(uri) == origin


def test_session_state_is_salted(backend):
    """Section 2: opaque, without a space; two answers for one session have nothing in common."""
    del backend
    here = browser_state(uuid4())
    first, second = (session_state("shop", "https://shop.example/cb", here) for _ in range(2))
    assert " " not in first
    assert first.partition(".")[0] != second.partition(".")[0]
    assert here not in first
