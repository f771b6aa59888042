"""The logout plans, from the sign-in to the end: RP-initiated, back-channel, front-channel, session management.

What the single pages and tokens are like is shown in the files of each specification beside this one.
"""

import re
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.oidc.relying_party import relying_party, wait_until
from tests.oidc.suite import CALLBACK, ISSUER, Module, unsigned
from tests.person import Landing, Page

PREFIX = CALLBACK.rpartition("/")[0]
BACK = PREFIX + "/post_logout_redirect"
FRONT = PREFIX + "/frontchannel_logout"
STATE = "s-._~+/ %" * 14 + "xx"


@pytest.fixture
def leaving(dynamic):
    """A module whose client has registered where to return, and whatever else a plan registers."""

    def start(**metadata):
        return dynamic(post_logout_redirect_uris=[BACK], **metadata)

    return start


def logout(module: Module, **parameters: str) -> Page | Landing:
    query = urlencode(parameters)
    found = module.person.visit(f"{module.provider.discovery['end_session_endpoint']}?{query}", BACK)
    if isinstance(found, Page) and found.form_with("logout-confirm"):
        found = module.person.press(found, "logout-confirm", BACK)
    return found


def returned(found: Page | Landing, state: str | None) -> None:
    """At the client's address, with the same state and nothing else."""
    assert isinstance(found, Landing)
    assert found.parameters == ({} if state is None else {"state": state})
    assert found.url.startswith(BACK)


def test_oidcc_rp_initiated_logout_discovery_endpoint_verification(provider):
    assert provider.discovery["end_session_endpoint"].startswith(ISSUER)


@pytest.mark.parametrize("response_type", ["code", "code id_token", "id_token"])
def test_oidcc_rp_initiated_logout(dynamic, response_type):
    module = dynamic(response_type, post_logout_redirect_uris=[BACK])
    landing = module.go()
    hint = landing.parameters.get("id_token") or module.redeem(landing)["jwt"]
    assert module.silently().pressed == []
    assert len(STATE) == 128
    returned(logout(module, id_token_hint=hint, post_logout_redirect_uri=BACK, state=STATE), STATE)
    module.is_signed_out()


def test_oidcc_rp_initiated_logout_no_state(leaving):
    module = leaving()
    hint = module.signed_in()["jwt"]
    returned(logout(module, id_token_hint=hint, post_logout_redirect_uri=BACK), None)
    module.is_signed_out()


def stays(module: Module, **parameters: str) -> None:
    """Whatever the page says, nobody is sent to the client."""
    endpoint = module.provider.discovery["end_session_endpoint"]
    page = module.person.page(f"{endpoint}?{urlencode(parameters)}")
    assert page.status in {200, 400}
    assert urlsplit(page.url).path == urlsplit(endpoint).path
    if page.form_with("logout-confirm"):
        page = module.person.press(page, "logout-confirm")
        assert isinstance(page, Page)
        assert page.status == 200
        module.is_signed_out()
    assert PREFIX not in page.text


def test_oidcc_rp_initiated_logout_bad_post_logout_redirect_uri(leaving):
    module = leaving()
    stays(module, id_token_hint=module.signed_in()["jwt"], post_logout_redirect_uri=BACK + "/unregistered")


def test_oidcc_rp_initiated_logout_query_added_to_post_logout_redirect_uri(leaving):
    module = leaving()
    stays(module, id_token_hint=module.signed_in()["jwt"], post_logout_redirect_uri=BACK + "?foo=bar")


def test_oidcc_rp_initiated_logout_modified_id_token_hint(leaving):
    module = leaving()
    claims = module.signed_in()["id_token"]
    stays(module, id_token_hint=unsigned(claims), post_logout_redirect_uri=BACK, state="s")


def test_oidcc_rp_initiated_logout_bad_id_token_hint(leaving):
    """Signed by somebody else: the client's own key."""
    module = leaving()
    claims = module.signed_in()["id_token"]
    stays(module, id_token_hint=module.client.signed(claims), post_logout_redirect_uri=BACK, state="s")


def test_oidcc_rp_initiated_logout_no_id_token_hint(leaving):
    module = leaving()
    module.signed_in()
    stays(module, post_logout_redirect_uri=BACK, state="s")


@pytest.mark.parametrize("what", ["no_params", "only_state", "no_post_logout_redirect_uri"])
def test_oidcc_rp_initiated_logout_without(leaving, what):
    """-no-params, -only-state, -no-post-logout-redirect-uri: signed out, and told so."""
    module = leaving()
    hint = module.signed_in()["jwt"]
    parameters = {
        "no_params": {},
        "only_state": {"state": "s"},
        "no_post_logout_redirect_uri": {"id_token_hint": hint},
    }
    page = logout(module, **parameters[what])
    assert isinstance(page, Page)
    assert page.status == 200
    assert "signed out" in page.text.lower()
    module.is_signed_out()


def test_oidcc_backchannel_rp_initiated_logout(leaving):
    document = leaving().provider.discovery
    assert document["backchannel_logout_supported"] is True
    assert document["backchannel_logout_session_supported"] is True
    with relying_party() as listening:
        module = leaving(
            backchannel_logout_uri=listening.url + "/backchannel_logout", backchannel_logout_session_required=True
        )
        tokens = module.signed_in()
        returned(logout(module, id_token_hint=tokens["jwt"], post_logout_redirect_uri=BACK, state="s"), "s")
        [received] = wait_until(lambda: listening.received, every=module.provider.rooms.backchannel_logout.deliver)
    assert received.content_type == "application/x-www-form-urlencoded"
    assert received.form.keys() == {"logout_token"}
    [token] = received.form["logout_token"]
    claims = module.provider.verified(token, module.client.client_id)
    assert abs(claims["iat"] - time.time()) < 30
    assert claims["jti"]
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert "nonce" not in claims
    for name in ("sub", "sid"):
        assert claims[name] == tokens["id_token"][name]
    module.is_signed_out()


def test_oidcc_frontchannel_rp_initiated_logout(leaving):
    module = leaving(frontchannel_logout_uri=FRONT, frontchannel_logout_session_required=True)
    document = module.provider.discovery
    assert document["frontchannel_logout_supported"] is True
    assert document["frontchannel_logout_session_supported"] is True
    tokens = module.signed_in()
    page = logout(module, id_token_hint=tokens["jwt"], post_logout_redirect_uri=BACK, state="s")
    # A page, not a redirect: else the frame would never be loaded.
    assert isinstance(page, Page)
    [frame] = page.frames
    assert frame.partition("?")[0] == FRONT
    assert dict(parse_qsl(urlsplit(frame).query)) == {"iss": ISSUER, "sid": tokens["id_token"]["sid"]}
    assert f"frame-src {PREFIX.partition('/test')[0]}" in page.headers["Content-Security-Policy"]
    assert BACK + "?state=s" in page.links
    assert "<script" in page.text, "it goes on by itself"
    module.is_signed_out()


def test_oidcc_session_management_rp_initiated_logout(leaving):
    """The iframe's answers are shown by running its script, in test_session_management."""
    module = leaving()
    iframe = module.provider.discovery["check_session_iframe"]
    assert module.provider.ask(iframe).mimetype == "text/html"
    for mode in ({}, {"response_mode": "form_post"}):
        state = module.go(**mode).parameters["session_state"]
        assert re.fullmatch(r"[0-9a-f]{64}\.[A-Za-z0-9_-]+", state)
    hint = module.redeem(module.go())["jwt"]
    returned(logout(module, id_token_hint=hint, post_logout_redirect_uri=BACK), None)
    module.is_signed_out()
