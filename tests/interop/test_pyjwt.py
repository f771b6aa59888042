"""PyJWT verifies our tokens with what it fetches from the live server."""

import jwt
import pytest

ALGORITHMS = ["RS256"]
REQUIRED = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]


@pytest.fixture(scope="module")
def keys(live_server):
    return jwt.PyJWKClient(f"{live_server.url}/.well-known/jwks.json")


def verify(keys, token, issuer, audience):
    key = keys.get_signing_key_from_jwt(token)
    return jwt.decode(
        token, key, algorithms=ALGORITHMS, issuer=issuer, audience=audience, options={"require": REQUIRED}
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
