"""Signing in, consenting and denying, as a person does it."""

import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.browser.visitor import Visitor


@pytest.fixture(scope="module")
def client_id(site):
    return site.client()["client_id"]


def request_of(visitor: Visitor, client_id: str) -> str:
    """Where the application sends its user."""
    asked = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": visitor.site.application.redirect_uri,
        "scope": "openid email offline_access posts:create",
        "prompt": "consent",
        "state": "s",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    return f"/oauth/authorize?{urlencode(asked)}"


def landed(visitor: Visitor) -> dict[str, str]:
    """What the application was sent."""
    visitor.page.wait_for_selector("#application")
    return {name: values[0] for name, values in parse_qs(urlsplit(visitor.page.url).query).items()}


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_into_an_application(browsers, site, client_id, scripts):
    visitor = browsers(scripts=scripts)
    username = f"ann-{secrets.token_hex(3)}"
    site.register(username)
    visitor.open(request_of(visitor, client_id))
    visitor.check("sign-in")
    visitor.sign_in(username, "wrong password")
    assert visitor.text("#error-code") == "invalid_credentials"
    visitor.check("sign-in-refused")
    visitor.sign_in(username)
    assert visitor.text("#client-name") == "Wattle Garden Notes"
    assert visitor.text("#signed-in-as") == username
    visitor.check("consent")
    visitor.page.click("#consent-allow")
    assert landed(visitor).keys() >= {"code", "state"}

    visitor.open(request_of(visitor, client_id))
    visitor.page.click("#consent-deny")
    assert landed(visitor)["error"] == "access_denied"
