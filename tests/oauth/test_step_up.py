"""Authentication contexts: what clients ask for, what is missing, and what tokens say (OIDC Core, RFC 9470)."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from flask import Flask

from tests.answers import granted
from tests.conftest import PASSWORD, Api, bearer
from tests.oauth.conftest import Browser, Site, answer, claims_of
from tests.pages.conftest import Elements
from tests.totp import App, enrolled
from tokenserver.rooms import Rooms
from tokenserver.verify.flask import Guard, requires

ESSENTIAL = json.dumps({"id_token": {"acr": {"essential": True, "values": ["2"]}}})


@pytest.fixture
def backend() -> str:
    return "postgresql"  # nothing here depends on it


@pytest.fixture
def authenticator(api: Api, browser: Browser) -> App:
    """Ann's, whose browser was signed in before she had it."""
    return enrolled(api, str(api.login()["access_token"]))[0]


def page_of(browser: Browser, response: Any) -> Any:
    assert urlsplit(response.headers["Location"]).path == "/login"
    return browser.http.get(response.headers["Location"])


def send(browser: Browser, page: Any, **fields: str) -> Any:
    return browser.http.post("/login", data=Elements(page.text).fields | fields)


def tokens(browser: Browser, site: Site, response: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    issued = granted(browser.redeem(site, answer(response)["code"]))
    return claims_of(issued["id_token"]), claims_of(issued["access_token"])


@pytest.mark.parametrize("asked", [{"acr_values": "gold 2 1"}, {"claims": ESSENTIAL}])
def test_only_the_second_factor_is_asked_for(
    browser: Browser, site: Site, authenticator: App, asked: dict[str, str]
):
    """RFC 9470 section 5; OIDC Core sections 3.1.2.1 and 5.5.1.1."""
    before = browser.http.get_cookie(browser.rooms.cookies.session_name).value
    session = browser.rooms.browser_sessions.find(before)
    page = page_of(browser, browser.authorize(site, **asked))
    elements = Elements(page.text)
    assert "otp" in elements.ids
    assert "password" not in elements.ids
    back = send(browser, page, otp=authenticator.code())
    id_token, access_token = tokens(browser, site, browser.http.get(back.headers["Location"]))
    for claims in (id_token, access_token):
        assert (claims["acr"], claims["amr"]) == ("2", ["pwd", "otp", "mfa"])
        # RFC 9470 section 3: the last active authentication.
        assert claims["auth_time"] >= int(session.authenticated_at.timestamp())
    # OWASP ASVS 7.2.4: another cookie, and the session that it was.
    after = browser.http.get_cookie(browser.rooms.cookies.session_name).value
    assert browser.rooms.browser_sessions.find(before) is None
    assert browser.rooms.browser_sessions.find(after).session_id == session.session_id == UUID(id_token["sid"])
    # It is remembered for this session.
    assert tokens(browser, site, browser.authorize(site, prompt="none", **asked))[0]["acr"] == "2"


def test_voluntary_where_it_can_not_be_reached(browser: Browser, site: Site):
    """OIDC Core section 3.1.2.1: no error. Ann has no second factor."""
    assert tokens(browser, site, browser.authorize(site, acr_values="2"))[0]["acr"] == "1"
    assert answer(browser.authorize(site, claims=ESSENTIAL))["error"] == "unmet_authentication_requirements"


def test_what_a_lower_level_and_unknown_words_ask_for(browser: Browser, site: Site, authenticator: App):
    for acr_values in ("1", "1 2", "gold", ""):
        assert tokens(browser, site, browser.authorize(site, acr_values=acr_values))[0]["acr"] == "1"
    either = json.dumps({"id_token": {"acr": {"essential": True, "values": ["2", "1"]}}})
    assert tokens(browser, site, browser.authorize(site, claims=either))[0]["acr"] == "1"
    unknown = json.dumps({"id_token": {"acr": {"essential": True, "value": "gold"}}})
    assert answer(browser.authorize(site, claims=unknown))["error"] == "unmet_authentication_requirements"


def test_without_a_page(browser: Browser, site: Site, authenticator: App):
    """OIDC Core section 3.1.2.6: a page could help, and none may be shown."""
    assert answer(browser.authorize(site, claims=ESSENTIAL, prompt="none"))["error"] == "login_required"
    assert "code" in answer(browser.authorize(site, acr_values="2", prompt="none"))


def test_a_client_s_own_default(browser: Browser, site_of: Callable[..., Site], authenticator: App):
    site = site_of(default_acr_values=["2"])
    assert "otp" in Elements(page_of(browser, browser.authorize(site)).text).ids


def test_a_full_sign_in_holds_both(browser: Browser, site: Site, authenticator: App):
    """max_age and prompt=login ask for the password again, and then for the rest."""
    page = page_of(browser, browser.authorize(site, max_age="0", acr_values="2"))
    second = send(browser, page, username="ann", password=PASSWORD)
    back = send(browser, second, otp=authenticator.code())
    assert tokens(browser, site, browser.http.get(back.headers["Location"]))[0]["acr"] == "2"


def test_somebody_else_can_sign_in_instead(browser: Browser, site: Site, authenticator: App, api: Api):
    api.register("bob")
    location = browser.authorize(site, acr_values="2").headers["Location"]
    page = browser.http.get(f"{location}&as=other")
    assert "password" in Elements(page.text).ids
    back = send(browser, page, username="bob", password=PASSWORD)
    assert tokens(browser, site, browser.http.get(back.headers["Location"]))[0]["acr"] == "1"


def test_the_step_needs_the_session_that_it_completes(
    browser: Browser, site: Site, authenticator: App, rooms: Rooms
):
    page = page_of(browser, browser.authorize(site, acr_values="2"))
    rooms.browser_sessions.sign_out(browser.http.get_cookie(rooms.cookies.session_name).value)
    refused = send(browser, page, otp=authenticator.code())
    assert (refused.status_code, Elements(refused.text).texts["error-code"]) == (400, "sign_in_expired")


def test_a_resource_challenges_and_lets_in_who_comes_back(browser: Browser, site: Site, authenticator: App):
    """RFC 9470 from end to end: challenge, authorization request, token."""
    resource = Flask("resource")
    Guard(browser.rooms.active_tokens.verifier).init_app(resource)

    @resource.get("/transfer")
    @requires("posts:create", acr_values=["2"], max_age=60)
    def transfer() -> dict[str, str]:
        return {"done": "yes"}

    weak = granted(browser.redeem(site, browser.code(site)))["access_token"]
    refused = resource.test_client().get("/transfer", headers=bearer(weak))
    assert refused.status_code == 401
    scheme, _, rest = refused.headers["WWW-Authenticate"].partition(" ")
    challenge = dict(part.split("=", 1) for part in rest.replace('"', "").split(", "))
    assert (scheme, challenge["error"]) == ("Bearer", "insufficient_user_authentication")
    wanted = {name: challenge[name] for name in ("acr_values", "max_age")}
    page = page_of(browser, browser.authorize(site, **wanted))
    back = send(browser, page, otp=authenticator.code())
    issued = granted(browser.redeem(site, answer(browser.http.get(back.headers["Location"]))["code"]))
    assert resource.test_client().get("/transfer", headers=bearer(issued["access_token"])).json == {"done": "yes"}
