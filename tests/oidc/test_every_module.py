"""What the conformance suite checks in nearly every module of OpenID Connect; `suite.py` does so in every test."""

import string
import time
from dataclasses import replace

import jwt
import pytest

from tests.oidc.suite import (
    CALLBACK,
    DESCRIPTION,
    ISSUER,
    PERSON,
    check_claims,
    check_discovery,
    check_entropy,
    check_error_page,
    check_id_token,
    check_keys,
    check_landing,
    check_refused,
    check_token_response,
    half_hash,
)
from tests.person import Landing, Stuck

# Every printable character that may stand in a state (RFC 6749 appendix A.5), in all 128 of them.
STATE = (string.punctuation + " " + string.ascii_letters + string.digits).ljust(128, "&")
FRONT = ("code id_token", "code token", "code id_token token", "id_token", "id_token token")


def test_discovery_names_the_issuer_and_its_endpoints(provider):
    check_discovery(provider.discovery)
    assert all(url.startswith(ISSUER) for name, url in provider.discovery.items() if name.endswith("_endpoint"))


def test_keys_are_public_well_formed_and_named_apart(provider):
    for alg in ("ES256", "EdDSA", "PS256"):
        provider.rooms.keys.ensure(alg)
    key_set = provider.ask(provider.discovery["jwks_uri"]).json
    check_keys(key_set)
    assert {key["kty"] for key in key_set["keys"]} == {"RSA", "EC", "OKP"}


def test_authentication_method_of_each_plan_is_listed(provider):
    listed = provider.discovery["token_endpoint_auth_methods_supported"]
    assert {"client_secret_basic", "client_secret_post", "private_key_jwt"} <= set(listed)


@pytest.mark.parametrize("response_type", ["code", "code id_token"])
def test_state_returns_byte_for_byte_and_only_where_it_was_sent(module, response_type):
    """On success and on error; `check_landing` compares."""
    for state in (STATE, None):
        module.go(response_type=response_type, state=state)
        error = module.silently(response_type=response_type, state=state, scope="openid email")
        assert "error" in error.parameters
    assert len(STATE) == 128


def test_iss_is_the_issuer_in_every_answer(module):
    for response_type in ("code", *FRONT):
        for prompt in ("none", None):
            assert module.go(response_type=response_type, prompt=prompt).parameters["iss"] == ISSUER


def test_query_of_the_redirect_uri_survives(provider, run):
    uri = CALLBACK + "?dummy1=lorem&dummy2=ip%20sum&empty="
    module = run(provider.client(redirect_uris=[uri]))
    for response_type in ("code", "code id_token"):
        for prompt in ("none", None):
            landing = module.go(response_type=response_type, prompt=prompt)
            assert landing.url.startswith(uri)


def test_code_comes_in_the_query_and_everything_else_in_the_fragment(module):
    for prompt in (None, "consent none"):
        assert "#" not in module.go(prompt=prompt).url
        for response_type in FRONT:
            landing = module.go(response_type=response_type, prompt=prompt)
            assert landing.url.startswith(CALLBACK + "#")
            assert ("error" in landing.parameters) == (prompt is not None)


def test_codes_can_not_be_guessed(module):
    codes = [module.go().parameters["code"] for _ in range(3)]
    assert len(set(codes)) == 3
    for code in codes:
        check_entropy(code)


def test_error_redirects_hold_what_is_registered_for_them_and_no_input(module):
    """`check_landing` looks at the names and at the characters."""
    hostile = {
        "prompt": 'log"in\\', "max_age": '"\\\r\n\t', "response_mode": "\x7f", "claims": "{", "scope": 'openid "',
        "id_token_hint": "x", "request": "y", "response_type": "co\tde",
    }  # fmt: skip
    for name, value in hostile.items():
        landing = module.go(**{name: value})
        parameters = landing.parameters
        assert parameters.keys() == {"error", "error_description", "state", "iss"}, name
        assert DESCRIPTION.fullmatch(parameters["error_description"])


def test_token_response_holds_tokens_and_their_lifetime(module):
    response = module.redeeming(module.go().parameters["code"])
    body = check_token_response(response)
    assert {"access_token", "token_type", "expires_in", "id_token"} <= body.keys()


def test_basic_needs_no_refresh_token(provider, run):
    module = run(provider.client(grant_types=["authorization_code"], response_types=["code"]))
    assert "refresh_token" not in module.signed_in()


def test_token_errors_are_json_of_status_400_or_401(module, run):
    code = module.go().parameters["code"]
    check_refused(module.redeeming("nonsense"), "invalid_grant")
    check_refused(module.redeeming(code, redirect_uri=CALLBACK + "/"), "invalid_grant")
    check_refused(module.redeeming(code, run().client), "invalid_grant")
    check_refused(module.token(grant_type="nonsense"), "unsupported_grant_type")
    check_refused(module.token(), "invalid_request")
    other = replace(module.client, secret="wrong")
    check_refused(module.redeeming(code, other), "invalid_client")
    module.redeem(Landing("", {"code": code}, []))


@pytest.mark.parametrize("response_type", ["code", *FRONT])
def test_id_token_says_who_for_whom_and_when(module, response_type):
    landing = module.go(response_type=response_type)
    tokens = []
    if "id_token" in response_type:
        tokens.append(module.in_front(landing))
    if "code" in response_type:
        tokens.append(module.redeem(landing)["id_token"])
    for claims in tokens:
        assert claims["nonce"] == module.sent["nonce"]
        assert {"acr", "auth_time", "sid", "at_hash"} - claims.keys() <= {"at_hash"}
    assert len({(claims["iss"], claims["sub"], claims["auth_time"], claims["sid"]) for claims in tokens}) <= 1


def test_no_nonce_where_none_was_sent(module):
    assert "nonce" not in module.redeem(module.go(nonce=None))["id_token"]


def test_hashes_tie_the_front_channel_to_its_id_token(module):
    landing = module.go(response_type="code id_token token").parameters
    claims = module.id_token(landing["id_token"])
    assert claims["c_hash"] == half_hash(landing["code"])
    assert claims["at_hash"] == half_hash(landing["access_token"])


def test_signature_is_by_a_key_of_the_jwks(module):
    token = module.redeem(module.go())["jwt"]
    assert jwt.get_unverified_header(token)["kid"] in {key.key_id for key in module.provider.keys().keys}
    head, _, signature = token.rpartition(".")
    with pytest.raises(jwt.InvalidSignatureError):
        module.id_token(f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")


def test_userinfo_takes_the_token_at_once(module):
    for _ in range(3):
        tokens = module.redeem(module.go())
        assert module.userinfo(tokens["access_token"])["sub"] == tokens["id_token"]["sub"]


def test_dynamic_client_is_deleted_by_its_management_uri(provider, run):
    client = provider.register()
    provider.unregister(client)
    header = {"Authorization": f"Bearer {client.registration['registration_access_token']}"}
    assert provider.ask(client.registration["registration_client_uri"], headers=header).status_code == 401
    with pytest.raises(Stuck) as stuck:
        run(client).go()
    check_error_page(stuck.value.page)


def test_checks_can_fail(module):
    """Each of them, by one wrong value."""
    landing, sent = module.go(), dict(module.sent)
    claims = module.redeem(landing)["id_token"]
    check_landing(landing, sent)
    expected = {"nonce": sent["nonce"], "code": None, "access_token": None}
    check_id_token(claims, module.client.client_id, **expected)

    def fails(check, *args, **options):
        with pytest.raises((AssertionError, KeyError)):
            check(*args, **options)

    for name, value in {"state": "other", "iss": "https://other.example", "code": "guess", "extra": "x"}.items():
        fails(check_landing, Landing(landing.url, landing.parameters | {name: value}, []), sent)
    fails(check_landing, Landing(landing.url.replace("?", "#"), landing.parameters, []), sent)
    fails(check_landing, landing, sent | {"response_mode": "form_post"})
    error = {"error": "x", "state": sent["state"], "iss": ISSUER}
    check_landing(Landing(CALLBACK + "?", error, []), sent)
    fails(check_landing, Landing(CALLBACK + "?", error | {"error_description": 'a "b"'}, []), sent)
    fails(check_landing, Landing(CALLBACK + "?", error | {"code": "x"}, []), sent)
    now = int(time.time())
    wrong = {
        "iss": ISSUER + "/", "aud": "other", "exp": now - 1, "iat": now - 400, "nonce": "other", "acr": "",
        "sub": "", "auth_time": now + 100, "name": "", "email_verified": "true", "address": {},
        "birthdate": "02.01.1990",
    }  # fmt: skip
    for name, value in wrong.items():
        fails(check_id_token, claims | {name: value}, module.client.client_id, **expected)
    expected["access_token"] = "y"
    fails(check_id_token, claims | {"at_hash": "x"}, module.client.client_id, **expected)
    check_claims(PERSON)
    key_set = {"keys": [{"kty": "OKP", "kid": "a", "crv": "Ed25519", "x": "A"}]}
    check_keys(key_set)
    for change in ({"d": "x"}, {"x": "A="}, {"crv": "X25519"}):
        fails(check_keys, {"keys": [key_set["keys"][0] | change]})
    fails(check_keys, {"keys": key_set["keys"] * 2})
    fails(check_keys, {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A"}]})
