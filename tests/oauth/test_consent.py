"""Sign-in and consent on the way to a client: when they are asked for, what is remembered, and taking it back."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from tests.answers import granted, refused
from tests.conftest import Api, bearer
from tests.oauth.conftest import CALLBACK, CHALLENGE, Browser, Site, answer, claims_of
from tests.person import Page, Person
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import Session

SIGN_IN, ALLOW, DENY = "login-submit", "consent-allow", "consent-deny"


def asking(site: Site, **parameters: str) -> str:
    usual = {
        "client_id": site.client_id,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid",
        "state": "the state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return "/oauth/authorize?" + urlencode(usual | parameters)


@pytest.fixture
def ann(app: Flask, api: Api, rooms: Rooms) -> Person:
    """Not signed in yet."""
    api.register()
    return Person.on(app.test_client(), rooms.settings.issuer, "ann")


@pytest.fixture
def third_party(site_of: Callable[..., Site]) -> Site:
    return site_of(first_party=False)


def redeem(api: Api, rooms: Rooms, site: Site, code: str) -> dict[str, Any]:
    return granted(Browser(api.http, rooms).redeem(site, code))


def test_consent_is_asked_once_for_each_scope(ann: Person, third_party: Site, site_of):
    """OIDC Core section 3.1.2.4: remembered per user, client and scope."""
    assert ann.authorize(asking(third_party), CALLBACK).pressed == [SIGN_IN, ALLOW]
    assert ann.authorize(asking(third_party), CALLBACK).pressed == []
    assert "code" in ann.authorize(asking(third_party, prompt="none"), CALLBACK).parameters
    more = {"scope": "openid profile"}
    silent = ann.authorize(asking(third_party, prompt="none", **more), CALLBACK)
    assert (silent.parameters["error"], silent.parameters["state"]) == ("consent_required", "the state")
    assert ann.authorize(asking(third_party, **more), CALLBACK).pressed == [ALLOW]
    assert ann.authorize(asking(third_party, **more), CALLBACK).pressed == []
    assert ann.authorize(asking(third_party), CALLBACK).pressed == []  # less than what was let
    assert ann.authorize(asking(third_party, prompt="consent"), CALLBACK).pressed == [ALLOW]
    other = site_of("other", first_party=False)
    assert ann.authorize(asking(other), CALLBACK).pressed == [ALLOW]


def test_claims_asked_for_by_name_are_consented_to(ann: Person, third_party: Site):
    """OIDC Core section 5.5: what no granted scope holds is named on the page, and remembered."""
    wanted = {"claims": '{"userinfo": {"email": {"essential": true}}}'}
    found = ann.visit(asking(third_party, **wanted), CALLBACK)
    assert isinstance(found, Page)
    page = ann.press(found, SIGN_IN, CALLBACK)
    assert isinstance(page, Page)
    assert '<span id="consent-claims">e-mail address</span>' in page.text
    assert "code" in ann.walk(page, CALLBACK, [ALLOW]).parameters
    assert ann.authorize(asking(third_party, **wanted), CALLBACK).pressed == []
    assert ann.authorize(asking(third_party), CALLBACK).pressed == []


def test_a_refusal_goes_back_to_the_client(ann: Person, third_party: Site):
    """RFC 6749 section 4.1.2.1; nothing of it is remembered."""
    found = ann.authorize(asking(third_party), CALLBACK, allow=False)
    assert (found.parameters["error"], found.parameters["state"]) == ("access_denied", "the state")
    assert found.parameters["iss"] == ann.origin
    assert ann.authorize(asking(third_party), CALLBACK).pressed == [ALLOW]


def test_whoever_cancels_the_sign_in_goes_back_too(ann: Person, third_party: Site):
    found = ann.visit(asking(third_party), CALLBACK)
    assert isinstance(found, Page)
    landing = ann.press(found, "login-cancel", CALLBACK)
    assert not isinstance(landing, Page)
    assert landing.parameters["error"] == "access_denied"


def test_first_party_clients_need_no_consent(ann: Person, site: Site):
    assert ann.authorize(asking(site), CALLBACK).pressed == [SIGN_IN]
    assert ann.authorize(asking(site), CALLBACK).pressed == []


def test_prompt_none_shows_no_page(ann: Person, third_party: Site):
    """OIDC Core section 3.1.2.6 (M2)."""
    found = ann.authorize(asking(third_party, prompt="none"), CALLBACK)
    assert found.parameters.keys() == {"error", "error_description", "state", "iss"}
    assert found.parameters["error"] == "login_required"


@pytest.mark.parametrize("asked", [{"prompt": "login"}, {"prompt": "select_account"}, {"max_age": "0"}])
def test_proving_it_again(api: Api, rooms: Rooms, ann: Person, site: Site, asked: dict[str, str]):
    """OIDC Core section 3.1.2.1 (M3): once, in the same session, and auth_time is that of this time."""
    first = ann.authorize(asking(site), CALLBACK)
    earlier = utc_now().replace(year=2026, month=1)
    rooms.database.write(lambda tx: tx.query(Session).update({"authenticated_at": earlier}))
    again = ann.authorize(asking(site, **asked), CALLBACK)
    assert again.pressed == [SIGN_IN]
    before, after = (
        claims_of(redeem(api, rooms, site, landing.parameters["code"])["id_token"]) for landing in (first, again)
    )
    assert after["sid"] == before["sid"]
    assert after["auth_time"] > earlier.timestamp() + 3600
    assert ann.authorize(asking(site), CALLBACK).pressed == []


def test_max_age_counts_from_the_sign_in(rooms: Rooms, ann: Person, site: Site, site_of):
    """OIDC Core section 3.1.2.1; default_max_age of OIDC Registration section 2."""
    ann.authorize(asking(site), CALLBACK)
    assert ann.authorize(asking(site, max_age="10000"), CALLBACK).pressed == []
    silent = ann.authorize(asking(site, max_age="0", prompt="none"), CALLBACK)
    assert silent.parameters["error"] == "login_required"
    strict = site_of("strict", default_max_age=0)
    assert ann.authorize(asking(strict), CALLBACK).pressed == [SIGN_IN]
    assert ann.authorize(asking(strict, max_age="10000"), CALLBACK).pressed == []


def test_whom_the_client_expects(api: Api, rooms: Rooms, ann: Person, site: Site, site_of, app: Flask):
    """OIDC Core sections 3.1.2.1 and 5.5.1: id_token_hint, and `sub` in the claims parameter."""
    tokens = redeem(api, rooms, site, ann.authorize(asking(site), CALLBACK).parameters["code"])
    hint, sub = tokens["id_token"], claims_of(tokens["id_token"])["sub"]
    by_claim = {"claims": f'{{"id_token": {{"sub": {{"value": "{sub}"}}}}}}'}
    for expected in ({"id_token_hint": hint}, by_claim):
        assert "code" in ann.authorize(asking(site, prompt="none", **expected), CALLBACK).parameters
    api.register("bob")
    bob = Person.on(app.test_client(), rooms.settings.issuer, "bob")
    bob.authorize(asking(site), CALLBACK)
    for expected in ({"id_token_hint": hint}, by_claim):
        silent = bob.authorize(asking(site, prompt="none", **expected), CALLBACK)
        assert silent.parameters["error"] == "login_required"
        # Bob signs in again where Ann was asked for: not a word about him.
        loud = bob.authorize(asking(site, **expected), CALLBACK)
        assert (loud.pressed, loud.parameters["error"]) == ([SIGN_IN], "login_required")
    # Somebody else's ID token, an altered one, an access token.
    other = site_of("other")
    for wrong in (hint[:-5] + "AAAAA", tokens["access_token"], "x"):
        assert ann.authorize(asking(site, id_token_hint=wrong), CALLBACK).parameters["error"] == "invalid_request"
    assert ann.authorize(asking(other, id_token_hint=hint), CALLBACK).parameters["error"] == "invalid_request"


def test_an_interaction_is_of_one_browser_and_one_use(ann: Person, app: Flask, rooms: Rooms, api: Api, site: Site):
    """Nobody finishes what somebody else began, and what is finished is over."""
    page = ann.page(asking(site))
    landing = ann.walk(page, CALLBACK, [SIGN_IN])
    assert "code" in landing.parameters
    interaction = page.url.partition("interaction=")[2]
    response = app.test_client().get(f"/oauth/authorize/{interaction}")
    assert (response.status_code, response.mimetype) == (400, "text/html")
    assert ann.page(f"/oauth/authorize/{interaction}").status == 400


def test_consents_are_listed_and_withdrawn(api: Api, rooms: Rooms, ann: Person, third_party: Site, site_of):
    """What came of it ends at once: with and without a refresh token, offline too."""
    plain = site_of("plain", first_party=False, grant_types=["authorization_code"])
    scopes = "openid posts:create"
    within = redeem(
        api, rooms, third_party, ann.authorize(asking(third_party, scope=scopes), CALLBACK).parameters["code"]
    )
    beyond = ann.authorize(asking(third_party, scope=f"{scopes} offline_access"), CALLBACK)
    offline = redeem(api, rooms, third_party, beyond.parameters["code"])
    kept = redeem(api, rooms, plain, ann.authorize(asking(plain, scope=scopes), CALLBACK).parameters["code"])
    own = bearer(api.login()["access_token"])
    listed = granted(api.http.get("/users/me/consents", headers=own))["items"]
    assert [(each["client_id"], each["scope"]) for each in listed] == [
        ("plain", "openid posts:create"),
        ("app", "openid offline_access posts:create"),
    ]
    assert api.http.delete("/users/me/consents/app", headers=own).status_code == 204
    refused(api.http.delete("/users/me/consents/app", headers=own), 404, "consent_not_found")
    refused(api.http.delete("/users/me/consents/nobody", headers=own), 404, "consent_not_found")
    for tokens in (within, offline):
        assert api.me(tokens["access_token"]).status_code == 401
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **third_party.form}
        refused(api.token(None, **form), 400, "invalid_grant")
    granted(api.me(kept["access_token"]))
    assert api.http.delete("/users/me/consents/plain", headers=own).status_code == 204
    assert api.me(kept["access_token"]).status_code == 401
    granted(api.http.get("/users/me", headers=own))
    # The browser is still signed in, and asks again.
    assert ann.authorize(asking(third_party), CALLBACK).pressed == [ALLOW]


def test_somebody_else_s_consent_is_not_there(api: Api, ann: Person, third_party: Site):
    ann.authorize(asking(third_party), CALLBACK)
    bob = bearer(api.signed_in("bob")["access_token"])
    assert granted(api.http.get("/users/me/consents", headers=bob))["items"] == []
    refused(api.http.delete("/users/me/consents/app", headers=bob), 404, "consent_not_found")


def test_essential_acr_that_can_t_be_reached(browser: Browser, site: Site):
    """OIDC Core section 5.5.1.1."""
    for values, error in ((["1", "2"], None), (["2"], "unmet_authentication_requirements")):
        claims = f'{{"id_token": {{"acr": {{"essential": true, "values": {values!r}}}}}}}'.replace("'", '"')
        assert answer(browser.authorize(site, claims=claims)).get("error") == error
    assert "code" in answer(browser.authorize(site, acr_values="2"))
