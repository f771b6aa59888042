"""joserfc's own verifier, as other programs use it, accepts our tokens with the JWK Set of the live server."""

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidClaimError
from joserfc.jwk import KeySet


@pytest.fixture(scope="module")
def keys(live_server):
    response = httpx.get(f"{live_server.url}/.well-known/jwks.json", timeout=30, trust_env=False)
    return KeySet.import_key_set(response.raise_for_status().json())


def verify(keys, token, issuer, audience):
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    rules.validate(decoded.claims)
    return decoded


def test_a_good_token(keys, live_server, token):
    decoded = verify(keys, token, live_server.url, live_server.url)
    assert decoded.header["typ"] == "at+jwt"
    assert decoded.claims["client_id"] in {"first-party", "interop-job"}


def test_an_altered_token(keys, live_server, token, alter):
    with pytest.raises(BadSignatureError):
        verify(keys, alter(token), live_server.url, live_server.url)


@pytest.mark.parametrize(
    ("issuer", "audience"),
    [("https://id.example", None), (None, "https://api.example")],
    ids=["issuer", "audience"],
)
def test_meant_for_others(keys, live_server, token, issuer, audience):
    with pytest.raises(InvalidClaimError):
        verify(keys, token, issuer or live_server.url, audience or live_server.url)
