"""ID tokens by what a client registered: algorithms, encryption, pairwise subjects."""

from typing import Any

import jwt
import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from tests.answers import granted, refused
from tests.conftest import Api, bearer
from tests.oauth.conftest import Browser, answer, claims_of
from tokenserver.clients.metadata import SIGNING_ALGS

RSA = RSAKey.generate_key(2048, {"kid": "r", "use": "enc"})
EC = ECKey.generate_key("P-256", {"kid": "e", "use": "enc"})

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def verified(api: Api, token: str) -> dict[str, Any]:
    header = jwt.get_unverified_header(token)
    keys = {key["kid"]: key for key in granted(api.http.get("/.well-known/jwks.json"))["keys"]}
    key = jwt.PyJWK(keys[header["kid"]])
    return dict(jwt.decode(token, key, algorithms=[header["alg"]], audience="app"))


@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_algorithm_is_the_registered_one(api: Api, browser: Browser, site_of, alg: str):
    """OIDC Registration section 2; OIDC Core section 10.1: by a key that the JWK Set names."""
    names = ("id_token", "userinfo", "access_token")
    site = site_of(**{f"{name}_signed_response_alg": alg for name in names})
    tokens = granted(browser.redeem(site, browser.code(site)))
    assert jwt.get_unverified_header(tokens["id_token"])["alg"] == alg
    assert jwt.get_unverified_header(tokens["access_token"])["alg"] == alg
    assert verified(api, tokens["id_token"])["nonce"] == "the nonce"
    response = api.http.get("/oauth/userinfo", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert (response.status_code, response.mimetype) == (200, "application/jwt")
    assert jwt.get_unverified_header(response.text)["alg"] == alg
    about = verified(api, response.text)
    assert about["sub"] == claims_of(tokens["id_token"])["sub"]
    granted(api.me(tokens["access_token"]))


@pytest.mark.parametrize(("alg", "key"), [("RSA-OAEP-256", RSA), ("ECDH-ES", EC)])
def test_encrypted(api: Api, browser: Browser, site_of, alg: str, key: Any):
    """OIDC Core section 10.2, RFC 7519 sections 5.2 and 11.2: signed, then encrypted, wherever it is issued."""
    site = site_of(
        grant_types=["authorization_code", "implicit", "refresh_token"],
        response_types=["code id_token"],
        jwks={"keys": [RSA.as_dict(private=False), EC.as_dict(private=False)]},
        id_token_encrypted_response_alg=alg,
    )
    found = answer(browser.authorize(site, response_type="code id_token"), "fragment")
    tokens = granted(browser.redeem(site, found["code"]))
    again = granted(api.token(None, grant_type="refresh_token", refresh_token=tokens["refresh_token"], **site.form))
    for encrypted in (found["id_token"], tokens["id_token"], again["id_token"]):
        opened = jwe.decrypt_compact(encrypted, key, algorithms=[alg, "A256GCM"])
        assert opened.protected == opened.protected | {"alg": alg, "enc": "A256GCM", "cty": "JWT", "kid": key.kid}
        assert opened.plaintext is not None
        assert verified(api, opened.plaintext.decode())["aud"] == "app"


def test_without_a_key_there_is_no_id_token(browser: Browser, site_of):
    """Never a plain one instead, and the code is not spent for nothing."""
    site = site_of(
        jwks={"keys": [EC.as_dict(private=False)]},
        id_token_encrypted_response_alg="RSA-OAEP-256",
    )
    code = browser.code(site)
    refused(browser.redeem(site, code), 400, "invalid_request")
    row = browser.rooms.codes.find(code)
    assert row is not None
    assert row.used_at is None


def test_pairwise_subjects(api: Api, browser: Browser, site_of):
    """OIDC Core section 8: per sector, the same in every token, and the user's id in none of them."""
    callbacks = ["https://one.example/cb", "https://one.example/other", "https://two.example/cb"]
    subjects = []
    user_id = granted(api.me(api.login()["access_token"]))["id"]
    for position, callback in enumerate(callbacks):
        site = site_of(f"app{position}", subject_type="pairwise", redirect_uris=[callback])
        tokens = granted(browser.redeem(site, browser.code(site)))
        claims = [claims_of(tokens[name]) for name in ("id_token", "access_token")]
        assert claims[0]["sub"] == claims[1]["sub"]
        assert user_id not in str(claims)
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert granted(api.http.get("/oauth/userinfo", headers=headers))["sub"] == claims[0]["sub"]
        assert granted(api.me(tokens["access_token"]))["id"] == user_id  # this server knows whom it means
        assert "code" in answer(browser.authorize(site, prompt="none", id_token_hint=tokens["id_token"]))
        subjects.append(claims[0]["sub"])
    assert subjects[0] == subjects[1] != subjects[2]


def test_there_is_one_only_where_openid_was_granted(api: Api, browser: Browser, site_of):
    """PYSEC-2026-4359: the scope that counts is the granted one, not the one in the request."""
    plain = site_of("plain", scope=["posts:create"], first_party=False)
    assert answer(browser.authorize(plain, scope="openid posts:create"))["error"] == "invalid_scope"
    site = site_of()
    assert "id_token" not in granted(browser.redeem(site, browser.code(site, scope="posts:create")))
    tokens = granted(browser.redeem(site, browser.code(site)))
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **site.form}
    narrowed = granted(api.token(None, **form, scope="posts:create"))
    assert "id_token" not in narrowed
    refused(api.http.get("/oauth/userinfo", headers=bearer(narrowed["access_token"])), 403, "insufficient_scope")
