"""Access tokens that somebody made or altered, sent to this server's own routes and to introspection.

RFC 8725 sections 3.1, 3.2, 3.10 and 3.11; RFC 9068 section 4; OWASP ASVS 9.2.
"""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(segment):
    return json.loads(urlsafe_b64decode(segment + "=="))


@pytest.fixture
def genuine(api):
    return api.signed_in()["access_token"]


@pytest.fixture
def signed(rooms, genuine):
    """Signs any header and claims with the server's own key: only the content can be wrong."""
    header, claims = (decode(segment) for segment in genuine.split(".")[:2])

    def sign(header_changes=None, claim_changes=None):
        signing_input = (
            f"{encode(header | (header_changes or {}))}.{encode(_without_none(claims | (claim_changes or {})))}"
        )
        signature = rooms.keys.signer("RS256").sign(signing_input.encode())
        return f"{signing_input}.{encode(signature)}"

    return sign


def _without_none(claims):
    return {name: value for name, value in claims.items() if value is not None}


def is_refused(api, confidential, token):
    answer = api.me(token)
    challenge = answer.headers.get("WWW-Authenticate", "")
    return (
        answer.status_code == 401
        and 'error="invalid_token"' in challenge
        and api.introspect(confidential, token).json == {"active": False}
    )


def test_the_genuine_one_is_accepted_and_so_is_one_signed_alike(api, confidential, genuine, signed):
    assert api.me(genuine).status_code == 200
    assert api.me(signed()).status_code == 200
    assert not is_refused(api, confidential, signed())


def test_altered_in_any_segment(api, confidential, genuine):
    for index in range(3):
        segments = genuine.split(".")
        for position in (0, len(segments[index]) // 2, len(segments[index]) - 2):
            changed = list(segments[index])
            changed[position] = "A" if changed[position] != "A" else "B"
            token = ".".join([*segments[:index], "".join(changed), *segments[index + 1 :]])
            assert is_refused(api, confidential, token), (index, position)


def test_headers_that_try_another_algorithm(api, confidential, genuine, rooms):
    header, payload, signature = genuine.split(".")
    claims = payload
    public = rooms.keys.find(decode(header)["kid"]).key
    pem = public.as_pem(private=False)
    der = public.raw_value.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(rooms.keys.jwks()["keys"][0]).encode()

    def hs256(key, **changes):
        signing_input = f"{encode(decode(header) | {'alg': 'HS256'} | changes)}.{claims}"
        return f"{signing_input}.{encode(hmac.digest(key, signing_input.encode(), hashlib.sha256))}"

    forged = [hs256(key) for key in (pem, pem.strip(), der, jwk, b"", b"null")]
    for alg in ("none", "None", "NONE", "nOnE", "", None, "rs256", "RS384", "PS256", "ES256", "EdDSA"):
        forged.append(f"{encode(decode(header) | {'alg': alg})}.{claims}.{signature}")
        forged.append(f"{encode(decode(header) | {'alg': alg})}.{claims}.")
    for token in forged:
        assert is_refused(api, confidential, token), decode(token.split(".")[0])


def test_headers_that_bring_their_own_key(api, confidential, genuine):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "n": encode(numbers.n.to_bytes(256)),
        "e": "AQAB",
        "kid": "mine",
        "alg": "RS256",
    }
    header, payload, _ = genuine.split(".")
    for changes in (
        {"jwk": jwk},
        {"jwk": jwk, "kid": "mine"},
        {"jku": "http://127.0.0.1:1/jwks"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"x5c": ["MIIB"]},
    ):
        signing_input = f"{encode(decode(header) | changes)}.{payload}"
        signature = key.sign(signing_input.encode(), padding.PKCS1v15(), SHA256())
        assert is_refused(api, confidential, f"{signing_input}.{encode(signature)}"), changes


@pytest.mark.parametrize("backend", ["sqlite"])
def test_wrong_headers_under_a_good_signature(api, confidential, signed):
    for changes in (
        {"typ": "JWT"},
        {"typ": "id+jwt"},
        {"typ": None},
        {"kid": "unknown"},
        {"kid": "../../etc/passwd"},
        {"kid": "a\x00b"},
        {"kid": None},
        {"kid": ["x"]},
        {"crit": ["exp"]},
        {"crit": ["unknown"], "unknown": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"zip": "DEF"},
        {"p2c": 1_000_000_000},
    ):
        assert is_refused(api, confidential, signed(changes)), changes


@pytest.mark.parametrize("backend", ["sqlite"])
def test_wrong_claims_under_a_good_signature(api, confidential, signed):
    now = time.time()
    for changes in (
        {"iss": "http://127.0.0.1"},
        {"iss": "http://127.0.0.1:8000/"},
        {"iss": ["http://127.0.0.1:8000"]},
        {"iss": None},
        {"aud": "first-party"},
        {"aud": None},
        {"aud": []},
        {"exp": now - 1},
        {"exp": None},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": "9999999999"},
        {"iat": now + 3600},
        {"nbf": now + 3600},
        {"sub": None},
        {"sub": ["x"]},
        {"sub": "00000000-0000-4000-8000-000000000000"},
        {"sub": "no uuid"},
        {"sid": "no uuid"},
        {"jti": None},
        {"client_id": None},
        {"client_id": "unknown"},
        {"scope": ["posts:create"]},
    ):
        assert is_refused(api, confidential, signed(claim_changes=changes)), changes


def test_other_tokens_of_this_server_are_no_access_tokens(api, confidential):
    """ASVS 9.2.2: an ID token or a refresh token is not an access token."""
    api.register()
    form = {"grant_type": "password", "username": "ann", "password": "correct horse 7 battery", "scope": "openid"}
    tokens = api.token(confidential, **form).json
    assert is_refused(api, confidential, tokens["id_token"])
    assert api.me(tokens["refresh_token"]).status_code == 401


def test_json_serialisation_jwe_and_huge_ones(api, confidential, genuine):
    header, payload, signature = genuine.split(".")
    flattened = json.dumps({"protected": header, "payload": payload, "signature": signature})
    general = json.dumps({"payload": payload, "signatures": []})
    for token in (flattened, general, f"{header}....", f"{header}.{payload}", f"{genuine}.{payload}", "." * 200):
        assert api.me(token).status_code in {400, 401}
        assert api.introspect(confidential, token).json == {"active": False}
    assert api.introspect(confidential, "x" * 40_000).json == {"active": False}
