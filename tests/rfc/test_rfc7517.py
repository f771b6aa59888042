"""RFC 7517 and 7518: the published keys."""

import jwt
from joserfc.jwk import JWKRegistry

from tests.answers import granted
from tests.conftest import Api, Apps

PATH = "/.well-known/jwks.json"
# RFC 7518 sections 6.2.2, 6.3.2 and 6.4: what is private about a key.
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def test_keys_are_public_signing_keys_with_a_name(api: Api):
    """Sections 4 and 8.5; RFC 7518 section 6.3.1: at least 2048 bits."""
    keys = granted(api.http.get(PATH))["keys"]
    assert keys
    for key in keys:
        assert not PRIVATE & key.keys()
        assert key["use"] == "sig"
        public = JWKRegistry.import_key(key)
        assert key["kid"] == public.thumbprint()  # RFC 7638
        if key["kty"] == "RSA":
            assert public.public_key.key_size >= 2048
    assert ("RSA", "RS256") in {(key["kty"], key["alg"]) for key in keys}
    assert len({key["kid"] for key in keys}) == len(keys)


def test_next_key_is_published_before_it_signs(api: Api):
    """OIDC Core section 10.1.1: verifiers know it when the first token comes."""
    keys = granted(api.http.get(PATH))["keys"]
    token = api.signed_in()["access_token"]
    used = jwt.get_unverified_header(token)["kid"]
    assert {key["kid"] for key in keys} > {used}


def test_set_is_cached_by_everybody_for_as_long_as_it_is_right(apps: Apps):
    """RFC 9111; E3."""
    client = apps(jwks_max_age=120).test_client()
    response = client.get(PATH)
    assert response.headers["Cache-Control"] == "public, max-age=120"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.mimetype == "application/json"
    etag = response.headers["ETag"]
    unchanged = client.get(PATH, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", etag)
    assert unchanged.headers["Cache-Control"] == "public, max-age=120"
    assert client.get(PATH, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head(PATH).headers["ETag"] == etag
