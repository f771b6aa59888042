"""`/consent`: who asks for what, and the answer, noted for the user who gave it (OIDC Core section 3.1.2.4)."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.conftest import Api
from tests.pages.conftest import Browser, policy_of, refused, shown
from tokenserver.oauth.interaction import Interaction
from tokenserver.rooms import Rooms


@pytest.fixture
def asked(browser: Browser) -> Interaction:
    browser.sign_in()
    claims = ["birthdate", "given_name"]
    return browser.begin(scope="posts:create email openid offline_access", claims=claims)


def test_it_says_in_words_who_asks_for_what(browser: Browser, asked: Interaction):
    page = browser.http.get(f"/consent?interaction={asked.id}")
    elements = shown(page)
    assert elements.texts["client-name"] == "An <app>"
    assert elements.texts["client-host"] == "app.example"
    assert elements.texts["signed-in-as"] == "ann"
    assert elements.texts["consent-claims"] == "birthdate, given name"
    scopes = elements.texts["consent-scopes"]
    for sentence in ("Write posts", "See your e-mail address", "while you are away", "the same person"):
        assert sentence in scopes
    assert elements.ids["client-logo"]["src"] == "https://cdn.example:8443/logo.png?a=1"
    assert policy_of(page)["form-action"] == "'self' https:"
    assert policy_of(page)["img-src"] == "'self' https://cdn.example:8443"


@pytest.mark.parametrize(("button", "noted"), [("consent-allow", "allowed"), ("consent-deny", "denied")])
def test_the_answer_is_noted_for_this_user(
    browser: Browser, rooms: Rooms, asked: Interaction, button: str, noted: str
):
    page = browser.http.get(f"/consent?interaction={asked.id}")
    pressed = shown(page).ids[button]
    answer = browser.send(page, **{str(pressed["name"]): str(pressed["value"])})
    assert (answer.status_code, answer.headers["Location"]) == (303, asked.resume)
    found = rooms.interactions.find(asked.id, browser.cookie)
    ann = rooms.people.find_by_login("ann")
    assert found is not None
    assert ann is not None
    assert found.data == {**asked.data, "consent": noted, "consent_user": str(ann.id)}


def test_nobody_answers_for_somebody_else(browser: Browser, rooms: Rooms, asked: Interaction, api: Api):
    """OWASP ASVS 3.5.1; django-oauth-toolkit #1819."""
    page = browser.http.get(f"/consent?interaction={asked.id}")
    refused(browser.send(page, decision="allow", csrf="x"), 403, "csrf_failed")
    refused(browser.send(page, {"Origin": "https://evil.example"}, decision="allow"), 403, "csrf_failed")
    refused(browser.send(page, decision="perhaps"), 400, "malformed_request")
    refused(browser.send(page), 400, "malformed_request")
    api.register("bob")
    browser.sign_in(browser.begin(), "bob")
    answer = browser.send(page, decision="allow")
    assert answer.headers["Location"] == f"/consent?interaction={asked.id}"
    rooms.browser_sessions.sign_out(browser.session)
    for answer in (browser.send(page, decision="allow"), browser.http.get(f"/consent?interaction={asked.id}")):
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/login?interaction={asked.id}")
    assert rooms.interactions.find(asked.id, browser.cookie) == asked


def test_an_interaction_of_another_browser_is_refused(
    browser: Browser, asked: Interaction, browser_of: Callable[[Flask], Browser]
):
    page = browser.http.get(f"/consent?interaction={asked.id}")
    others = browser_of(browser.app).begin()
    refused(browser.http.get(f"/consent?interaction={others.id}"), 404, "interaction_not_found")
    refused(browser.http.get("/consent"), 404, "interaction_not_found")
    answer: Any = browser.send(page, interaction=others.id, decision="allow")
    refused(answer, 404, "interaction_not_found")
