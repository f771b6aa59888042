"""PyJWT verifies our tokens with what it fetches from the live server."""

import base64
import hashlib

import jwt
import pytest

from tests.live_server import PASSWORD

ALGORITHMS = ["RS256"]
REQUIRED = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id")


@pytest.fixture(scope="module")
def keys(live_server):
    return jwt.PyJWKClient(f"{live_server.url}/.well-known/jwks.json")


def verify(keys, token, issuer, audience, required=REQUIRED):
    key = keys.get_signing_key_from_jwt(token)
    return jwt.decode(
        token, key, algorithms=ALGORITHMS, issuer=issuer, audience=audience, options={"require": list(required)}
    )


def test_a_good_token(keys, live_server, token):
    claims = verify(keys, token, live_server.url, live_server.url)
    assert claims["client_id"] in {"first-party", "interop-job"}
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_the_users_claims(keys, live_server, user_token):
    claims = verify(keys, user_token, live_server.url, live_server.url)
    assert claims["scope"] == "posts:create"
    assert claims["roles"] == ["user"]
    assert claims["amr"] == ["pwd"]
    assert {"sid", "auth_time", "acr"} <= claims.keys()


def test_the_clients_claims(keys, live_server, client_token):
    claims = verify(keys, client_token, live_server.url, live_server.url)
    assert claims["sub"] == claims["client_id"] == "interop-job"
    assert claims["scope"] == "users:read"
    assert "sid" not in claims


def test_an_altered_token(keys, live_server, token, alter):
    with pytest.raises(jwt.InvalidSignatureError):
        verify(keys, alter(token), live_server.url, live_server.url)


def test_another_issuer(keys, live_server, token):
    with pytest.raises(jwt.InvalidIssuerError):
        verify(keys, token, "https://id.example", live_server.url)


def test_another_audience(keys, live_server, token):
    with pytest.raises(jwt.InvalidAudienceError):
        verify(keys, token, live_server.url, "https://api.example")


@pytest.fixture(scope="module")
def identified(live_server):
    """The answer to the password grant with `scope=openid`."""
    live_server.signed_in("identified")
    form = {"grant_type": "password", "client_id": "first-party", "username": "identified", "password": PASSWORD}
    return live_server.post("/oauth/token", data=form | {"scope": "openid"})


def test_the_id_token(keys, live_server, identified):
    id_token, access_token = identified["id_token"], identified["access_token"]
    assert jwt.get_unverified_header(id_token)["typ"] == "JWT"
    claims = verify(
        keys, id_token, live_server.url, "first-party", ("iss", "sub", "aud", "exp", "iat", "auth_time")
    )
    assert claims["sub"] == live_server.me(access_token)["id"]
    # OIDC Core 3.1.3.6: the left half of the hash of the access token
    digest = hashlib.sha256(access_token.encode()).digest()
    assert claims["at_hash"] == base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def test_the_id_token_is_no_access_token_here(live_server, identified):
    live_server.me(identified["id_token"], 401)
