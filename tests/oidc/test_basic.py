"""The Basic plan (oidcc-basic-certification-test-plan): a test for each of its modules, named after it."""

import uuid

import pytest

from tests.oidc.suite import (
    CALLBACK,
    CLAIMS,
    ID_TOKEN_EXTRAS,
    NOT_SIGNED_IN,
    STANDARD,
    check_entropy,
    check_error_page,
    check_landing,
    check_refused,
    check_token_response,
    unsigned,
)
from tests.person import Stuck


def skips_unsigned(provider):
    """What makes the suite skip unsigned request objects: the list is there, and without `none`."""
    listed = provider.discovery["request_object_signing_alg_values_supported"]
    return "none" not in listed and "RS256" in listed


# 1
def test_oidcc_server(module):
    tokens = module.signed_in()
    assert tokens["id_token"].keys() <= ID_TOKEN_EXTRAS, "nothing about the person that nobody asked for"
    assert "expires_in" in tokens


# 2
def test_oidcc_response_type_missing(module):
    landing = module.go(response_type=None)
    assert landing.parameters["error"] in {"unsupported_response_type", "invalid_request"}
    assert landing.pressed == []


# 3
def test_oidcc_idtoken_signature(dynamic):
    """`verified` in the suite of ours looks for RS256 and for a key under the header's kid."""
    module = dynamic(id_token_signed_response_alg=None)
    assert module.signed_in()["jwt"]


# 4
def test_oidcc_idtoken_unsigned(provider):
    """Skipped by the suite: it isn't offered, and a client that wants it is refused."""
    assert "none" not in provider.discovery["id_token_signing_alg_values_supported"]
    check_refused(provider.registering(id_token_signed_response_alg="none"), "invalid_client_metadata")


# 5
def test_oidcc_userinfo_get(module):
    tokens = module.redeem(module.go())
    assert module.userinfo(tokens["access_token"]) == {"sub": tokens["id_token"]["sub"]}


# 6
def test_oidcc_userinfo_post_header(module):
    tokens = module.redeem(module.go())
    assert module.userinfo(tokens["access_token"], "post header") == {"sub": tokens["id_token"]["sub"]}


# 7
def test_oidcc_userinfo_post_body(module):
    tokens = module.redeem(module.go())
    assert module.userinfo(tokens["access_token"], "post body") == {"sub": tokens["id_token"]["sub"]}


# 8
def test_oidcc_ensure_request_without_nonce_succeeds_for_code_flow(module):
    assert "nonce" not in module.signed_in(nonce=None)["id_token"]


def scope_claims(module, *scopes):
    assert set(scopes) <= set(module.provider.discovery["scopes_supported"])
    tokens = module.redeem(module.go(scope=" ".join(("openid", *scopes))))
    wanted = frozenset().union(*(CLAIMS[scope] for scope in scopes))
    told = module.userinfo(tokens["access_token"])
    assert told.keys() == wanted | {"sub"}, "every claim of the scope, and no other"
    assert tokens["id_token"].keys() <= ID_TOKEN_EXTRAS


# 9
def test_oidcc_scope_profile(module):
    scope_claims(module, "profile")


# 10
def test_oidcc_scope_email(module):
    scope_claims(module, "email")


# 11
def test_oidcc_scope_address(module):
    scope_claims(module, "address")


# 12
def test_oidcc_scope_phone(module):
    scope_claims(module, "phone")


# 13
def test_oidcc_scope_all(module):
    scope_claims(module, "profile", "email", "address", "phone")
    assert frozenset().union(*CLAIMS.values()) == STANDARD


# 14
def test_oidcc_alternate_happy_flow(module):
    """The scopes the other way round, and the parameters too."""
    sent = module.sent = module.request(scope="email openid")
    landing = module.person.authorize(module.url(dict(reversed(sent.items()))), CALLBACK)
    check_landing(landing, sent)
    tokens = module.redeem(landing)
    assert module.userinfo(tokens["access_token"]).keys() == CLAIMS["email"] | {"sub"}


# 15
def test_oidcc_display_page(module):
    module.signed_in(display="page")


# 16
def test_oidcc_display_popup(module):
    module.signed_in(display="popup")


# 17
def test_oidcc_prompt_login(module, later):
    first = module.signed_in()
    later(5)
    landing = module.go(prompt="login")
    assert landing.pressed == ["login-submit"], "signed in again; the consent is remembered"
    second = module.redeem(landing)
    assert second["id_token"]["auth_time"] > first["id_token"]["auth_time"] - 5
    assert second["id_token"]["sub"] == first["id_token"]["sub"]


# 18
def test_oidcc_prompt_none_not_logged_in(module):
    landing = module.silently(state="s" * 128)
    assert landing.parameters["error"] in NOT_SIGNED_IN
    assert "code" not in landing.parameters


# 19
def test_oidcc_prompt_none_logged_in(module, later):
    first = module.signed_in()["id_token"]
    later(3)
    landing = module.silently()
    second = module.redeem(landing)["id_token"]
    # Of the sign-in, however long ago; `later` moved it.
    assert (second["sub"], second["auth_time"]) == (first["sub"], first["auth_time"] - 3)


# 20
def test_oidcc_max_age_1(module, later):
    first = module.redeem(module.go())["id_token"]
    later(2)
    landing = module.go(max_age="1")
    assert landing.pressed == ["login-submit"]
    second = module.redeem(landing)["id_token"]
    assert second["iat"] - second["auth_time"] <= 2, "recent"
    assert second["auth_time"] > first["auth_time"] - 2, "later than that of the sign-in that was moved back"


# 21
def test_oidcc_max_age_10000(module, later):
    first = module.redeem(module.go(max_age="15000"))["id_token"]
    later(3)
    landing = module.go(max_age="10000")
    assert landing.pressed == []
    assert module.redeem(landing)["id_token"]["auth_time"] == first["auth_time"] - 3


# 22
def test_oidcc_ensure_request_with_unknown_parameter_succeeds(module):
    module.signed_in(extra="foobar")


# 23
def test_oidcc_id_token_hint(module):
    first = module.redeem(module.go())
    second = module.redeem(module.silently(id_token_hint=first["jwt"]))
    for name in ("sub", "auth_time"):
        assert second["id_token"][name] == first["id_token"][name]


# 24
def test_oidcc_login_hint(module):
    module.signed_in(login_hint="ann@example.org")


# 25
def test_oidcc_ui_locales(module):
    module.signed_in(ui_locales="se")


# 26
def test_oidcc_claims_locales(module):
    module.signed_in(claims_locales="se")


# 27
def test_oidcc_ensure_request_with_acr_values_succeeds(module):
    known = module.provider.discovery["acr_values_supported"]
    assert module.signed_in(acr_values=" ".join(known))["id_token"]["acr"] in known
    module.signed_in(acr_values="1 2")


# 28
def test_oidcc_codereuse(module):
    landing = module.go()
    module.redeem(landing)
    check_refused(module.redeeming(landing.parameters["code"]), "invalid_grant")


# 29
def test_oidcc_codereuse_30seconds(module, later):
    landing = module.go()
    tokens = module.redeem(landing)
    later(30)
    check_refused(module.redeeming(landing.parameters["code"]), "invalid_grant")
    assert module.asking_userinfo(tokens["access_token"]).status_code == 401


# 30
def test_oidcc_ensure_registered_redirect_uri(module):
    page = module.page(redirect_uri=f"{CALLBACK}/{uuid.uuid4().hex}")
    assert "redirect_uri" in page.text


# 31
def test_oidcc_ensure_post_request_succeeds(module):
    tokens = module.redeem(module.go(method="POST"))
    # The session of that sign-in is found by a later request, whatever its method.
    module.sent.clear()
    again = module.go(method="POST")
    assert again.pressed == []
    assert module.redeem(again)["id_token"]["sub"] == tokens["id_token"]["sub"]


# 32
def test_oidcc_server_client_secret_post(provider, run):
    assert "client_secret_post" in provider.discovery["token_endpoint_auth_methods_supported"]
    run(provider.client(token_endpoint_auth_method="client_secret_post")).signed_in()


# 33
def test_oidcc_request_uri_unsigned_supported_correctly_or_rejected_as_unsupported(module):
    """Skipped by the suite. What isn't registered is refused without being asked for."""
    assert skips_unsigned(module.provider)
    landing = module.go(request_uri="https://suite.example/requests/unsigned.jwt")
    assert landing.parameters["error"] == "invalid_request_uri"


# 34
def test_oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported(module):
    """Skipped by the suite. What is not signed is refused, not ignored."""
    assert skips_unsigned(module.provider)
    inside = {"state": "inside", "nonce": "inside"}
    landing = module.go(request=unsigned(inside), nonce=None)
    assert landing.parameters["error"] == "invalid_request_object"
    assert landing.pressed == []


# 35
def test_oidcc_claims_essential(module):
    tokens = module.redeem(module.go(claims='{"userinfo":{"name":{"essential":true}}}'))
    assert module.userinfo(tokens["access_token"])["name"] == "Ann B. Example"
    assert tokens["id_token"].keys() <= ID_TOKEN_EXTRAS


# 36
def test_oidcc_ensure_request_object_with_redirect_uri(module):
    """Skipped by the suite. An address outside that isn't registered leads to a page of ours, not to a redirect."""
    assert skips_unsigned(module.provider)
    sent = module.request(
        redirect_uri=f"{CALLBACK}/{uuid.uuid4().hex}", request=unsigned({"redirect_uri": CALLBACK})
    )
    with pytest.raises(Stuck) as stuck:
        module.person.authorize(module.url(sent), CALLBACK)
    check_error_page(stuck.value.page)


# 37
def test_oidcc_refresh_token(provider, run, module):
    document = provider.discovery
    assert "refresh_token" in document["grant_types_supported"]
    assert "offline_access" in document["scopes_supported"]
    scope = "openid offline_access"
    other = run()
    tokens, others = (each.redeem(each.go(scope=scope, prompt="consent")) for each in (module, other))
    check_entropy(tokens["refresh_token"])
    # The first client sends the scope again.
    refreshed = check_token_response(
        module.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope=scope)
    )
    first = tokens["id_token"]
    second = provider.verified(refreshed["id_token"], module.client.client_id)
    for name in ("iss", "sub", "aud", "auth_time"):
        assert second[name] == first[name]
    assert ("azp" in second) == ("azp" in first)
    assert second["iat"] >= first["iat"]
    assert module.userinfo(refreshed["access_token"])["sub"] == first["sub"]
    # The second one's token is nothing to the first.
    check_refused(module.token(grant_type="refresh_token", refresh_token=others["refresh_token"]), "invalid_grant")
    check_token_response(other.token(grant_type="refresh_token", refresh_token=others["refresh_token"]))


# 38
def test_oidcc_ensure_request_with_valid_pkce_succeeds(module):
    assert "S256" in module.provider.discovery["code_challenge_methods_supported"]
    verifier = "v" * 64
    landing = module.go(code_challenge="w1TpKUdYE9hUAcNSeeSRFioHDxfUxuHho_JHAfZ_vDM", code_challenge_method="S256")
    check_refused(module.redeeming(landing.parameters["code"], code_verifier="w" * 64), "invalid_grant")
    module.redeem(landing, code_verifier=verifier)


def test_a_page_is_no_answer(module):
    """The suite of ours notices a redirect where a page is due, and a page where an answer is."""
    with pytest.raises(AssertionError, match="sent on to"):
        module.page()
    with pytest.raises(Stuck):
        module.go(client_id="nobody")
