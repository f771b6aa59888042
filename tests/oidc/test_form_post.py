"""The form post plans: modules of Basic with response_mode=form_post on every request, and what differs there."""

import re
from html import escape
from urllib.parse import urlsplit

import pytest

from tests.oidc.suite import CALLBACK, ISSUER, NOT_SIGNED_IN, check_refused
from tests.oidc.test_basic import (  # noqa: F401 - they run again here, with this plan's requests
    test_oidcc_alternate_happy_flow,
    test_oidcc_claims_essential,
    test_oidcc_ensure_post_request_succeeds,
    test_oidcc_ensure_registered_redirect_uri,
    test_oidcc_ensure_request_without_nonce_succeeds_for_code_flow,
    test_oidcc_id_token_hint,
    test_oidcc_max_age_1,
    test_oidcc_max_age_10000,
    test_oidcc_prompt_login,
    test_oidcc_prompt_none_logged_in,
    test_oidcc_prompt_none_not_logged_in,
    test_oidcc_refresh_token,
    test_oidcc_response_type_missing,
    test_oidcc_server,
    test_oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported,
    test_oidcc_userinfo_get,
)

TYPES = ("code", "code id_token", "code token", "code id_token token", "id_token", "id_token token")


@pytest.fixture
def module(run):
    return run(response_mode="form_post")


@pytest.mark.parametrize("response_type", TYPES)
def test_answer_is_posted_as_a_form_with_nothing_in_the_query(module, response_type):
    """`check_landing` of the suite of ours: a form, and neither query nor fragment; errors too."""
    assert "form_post" in module.provider.discovery["response_modes_supported"]
    error = module.silently(response_type=response_type, state="s" * 128)
    assert error.parameters["error"] in NOT_SIGNED_IN
    for landing in (error, module.go(response_type=response_type)):
        assert landing.url == CALLBACK
        assert landing.body
        assert len(dict(landing.body)) == len(landing.body)


def test_page_posts_itself_and_escapes_as_html(module):
    """Values are escaped for HTML, not percent-encoded; a script submits the form, and the policy lets it."""
    state = "\"'<&>%25+ ä"
    page = module.provider.ask(module.url(module.request(state=state, prompt="none")))
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert f'name="state" value="{escape(state)}"' in page.text
    assert f'name="iss" value="{ISSUER}"' in page.text
    [form] = re.findall(r"<form [^>]+>", page.text)
    assert 'method="post"' in form
    assert f'action="{CALLBACK}"' in form
    assert "enctype" not in form, "application/x-www-form-urlencoded"
    [script] = re.findall(r"<script>(.+)</script>", page.text)
    assert script == "document.forms[0].submit()"
    policy = page.headers["Content-Security-Policy"]
    parts = urlsplit(CALLBACK)
    assert f"form-action {parts.scheme}://{parts.netloc}" in policy
    assert page.headers["Cache-Control"] == "no-store"
    # What came is what was sent.
    assert module.go(state=state).parameters["state"] == state


def test_query_of_the_redirect_uri_survives_in_the_action_of_the_form(provider, run):
    module = run(provider.client(redirect_uris=[CALLBACK + "?foo=bar&x=%26"]), response_mode="form_post")
    landing = module.go()
    assert landing.url == CALLBACK + "?foo=bar&x=%26"
    module.redeem(landing)
    check_refused(module.redeeming(landing.parameters["code"]), "invalid_grant")
