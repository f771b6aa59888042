"""The hybrid and implicit plans: the modules of Basic for each response type, and what differs there."""

import pytest

from tests.oidc.suite import CLAIMS, ID_TOKEN_EXTRAS, NOT_SIGNED_IN, STANDARD
from tests.oidc.test_basic import (  # noqa: F401 - they run again here, for each hybrid type
    skips_unsigned,
    test_oidcc_alternate_happy_flow,
    test_oidcc_claims_essential,
    test_oidcc_codereuse,
    test_oidcc_codereuse_30seconds,
    test_oidcc_ensure_post_request_succeeds,
    test_oidcc_ensure_registered_redirect_uri,
    test_oidcc_ensure_request_with_unknown_parameter_succeeds,
    test_oidcc_ensure_request_with_valid_pkce_succeeds,
    test_oidcc_id_token_hint,
    test_oidcc_max_age_1,
    test_oidcc_max_age_10000,
    test_oidcc_prompt_login,
    test_oidcc_prompt_none_logged_in,
    test_oidcc_prompt_none_not_logged_in,
    test_oidcc_refresh_token,
    test_oidcc_response_type_missing,
    test_oidcc_scope_all,
    test_oidcc_server,
)

HYBRID = ("code id_token", "code token", "code id_token token")
IMPLICIT = ("id_token", "id_token token")
WITH_ID_TOKEN = ("code id_token", "code id_token token", *IMPLICIT)
MODES = ({}, {"response_mode": "form_post"})


@pytest.fixture(params=HYBRID)
def module(run, request):
    return run(response_type=request.param)


@pytest.fixture(params=IMPLICIT)
def implicit(run, request):
    return run(response_type=request.param)


@pytest.mark.parametrize("mode", MODES, ids=["fragment", "form_post"])
@pytest.mark.parametrize("response_type", WITH_ID_TOKEN)
def test_oidcc_ensure_request_without_nonce_fails(run, response_type, mode):
    landing = run(response_type=response_type, **mode).go(nonce=None)
    assert landing.parameters["error"] == "invalid_request"
    assert landing.pressed == []


def test_oidcc_ensure_request_without_nonce_succeeds_for_code_token(run):
    """No ID token comes by the browser that it could tie to the request."""
    module = run(response_type="code token")
    assert "nonce" not in module.redeem(module.go(nonce=None))["id_token"]


@pytest.mark.parametrize("response_type", HYBRID)
def test_both_id_tokens_are_of_one_issuer_and_subject(run, response_type):
    module = run(response_type=response_type)
    landing = module.go(scope="openid profile email")
    tokens = module.redeem(landing)
    if "id_token" in landing.parameters:
        front = module.in_front(landing)
        for name in ("iss", "sub", "aud", "auth_time", "sid", "nonce"):
            assert front[name] == tokens["id_token"][name]
        assert front.keys() <= ID_TOKEN_EXTRAS, "the claims of the scopes are for userinfo"
    # The token of the front channel is good at once, and so is the one for the code.
    for token in (landing.parameters.get("access_token"), tokens["access_token"]):
        if token is not None:
            assert module.userinfo(token).keys() == CLAIMS["profile"] | CLAIMS["email"] | {"sub"}


@pytest.mark.parametrize("mode", MODES, ids=["fragment", "form_post"])
def test_implicit_happy_flow(implicit, run, mode):
    module = run(**(implicit.plan | mode))
    parameters = module.go(display="page", ui_locales="se", extra="foobar", acr_values="1 2").parameters
    assert parameters.keys() - {"access_token", "token_type", "expires_in", "scope"} == {
        "id_token", "state", "iss", "session_state"
    }  # fmt: skip
    assert ("access_token" in parameters) == ("token" in module.plan["response_type"].split())


def test_implicit_scopes(implicit):
    """With `id_token` alone nobody can be asked for the claims, so it holds them; else userinfo does."""
    landing = implicit.go(scope="openid profile email address phone")
    claims, token = implicit.in_front(landing), landing.parameters.get("access_token")
    if token is None:
        assert claims.keys() - ID_TOKEN_EXTRAS == STANDARD
        return
    assert claims.keys() <= ID_TOKEN_EXTRAS
    for how in ("header", "post header", "post body"):
        assert implicit.userinfo(token, how).keys() == STANDARD | {"sub"}


def test_implicit_sessions(implicit, later):
    """Of Basic: prompt=none before and after, id_token_hint, max_age both ways, prompt=login."""
    error = implicit.silently(state="s" * 128)
    assert error.parameters["error"] in NOT_SIGNED_IN
    first = implicit.go()
    claims = implicit.in_front(first)
    hint = first.parameters["id_token"]
    for parameters in ({"prompt": "none"}, {"prompt": "none", "id_token_hint": hint}, {"max_age": "10000"}):
        landing = implicit.go(**parameters)
        assert landing.pressed == []
        again = implicit.in_front(landing)
        assert (again["sub"], again["auth_time"]) == (claims["sub"], claims["auth_time"])
    later(5)
    for parameters in ({"max_age": "1"}, {"prompt": "login"}):
        landing = implicit.go(**parameters)
        assert landing.pressed == ["login-submit"]
        assert implicit.in_front(landing)["auth_time"] > claims["auth_time"] - 5
        later(5)


def test_implicit_requests(implicit):
    """Of Basic: by POST; without response_type; to an address that isn't registered; with an unsigned object."""
    assert implicit.go(method="POST").parameters["id_token"]
    assert implicit.go(response_type=None).parameters["error"] in {"unsupported_response_type", "invalid_request"}
    implicit.page(redirect_uri=implicit.client.redirect_uri + "/other")
    assert skips_unsigned(implicit.provider)
    landing = implicit.go(claims='{"id_token":{"name":{"essential":true}}}')
    assert implicit.in_front(landing)["name"] == "Ann B. Example"
