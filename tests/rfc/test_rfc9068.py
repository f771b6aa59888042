"""RFC 9068: the access token, as issued and as accepted by this server's own routes."""

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any
from uuid import UUID

import jwt
import pytest
from joserfc.jwk import RSAKey

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps
from tokenserver.errors import Invalid
from tokenserver.rooms import Rooms
from tokenserver.tokens.access_token import new_jti, sign_jwt

ANN = {"grant_type": "password", "username": "ann", "password": PASSWORD}


def part(token: str, index: int) -> dict[str, Any]:
    segment = token.split(".")[index]
    return dict(json.loads(urlsafe_b64decode(segment + "=" * (-len(segment) % 4))))


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_header(api: Api):
    """Section 2.1: signed, never "none"; typ at+jwt; a key of the published set, verified by another library."""
    tokens = api.signed_in()
    header = part(tokens["access_token"], 0)
    keys = granted(api.http.get("/.well-known/jwks.json"))
    assert header == {"typ": "at+jwt", "alg": "RS256", "kid": header["kid"]}
    assert header["kid"] in {key["kid"] for key in keys["keys"]}
    key = jwt.PyJWKSet.from_dict(keys)[header["kid"]]
    options = {"audience": part(tokens["access_token"], 1)["aud"], "options": {"require": ["exp", "iat", "jti"]}}
    assert jwt.decode(tokens["access_token"], key, algorithms=["RS256"], **options)


def test_claims_of_a_user_s_token(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 2.2; 2.2.1: how and when the user signed in; 2.2.3.1: roles."""
    user = api.register()
    tokens = granted(api.token(confidential, **ANN))
    claims = part(tokens["access_token"], 1)
    now = time.time()
    assert (claims["iss"], claims["aud"]) == (rooms.settings.issuer, rooms.settings.audience)
    assert (claims["sub"], claims["client_id"]) == (user["id"], "backend")
    assert claims["exp"] == claims["iat"] + tokens["expires_in"]
    assert abs(claims["iat"] - now) < 60
    assert UUID(claims["jti"]).version == 7
    assert claims["scope"] == tokens["scope"]
    assert (claims["roles"], claims["acr"], claims["amr"]) == (["user"], "1", ["pwd"])
    assert abs(claims["auth_time"] - now) < 60
    assert UUID(claims["sid"])
    assert all(type(claims[name]) is int for name in ("exp", "iat", "auth_time"))
    again = granted(api.token(confidential, **ANN))["access_token"]
    assert part(again, 1)["jti"] != claims["jti"]


def test_auth_time_and_session_stay_through_a_refresh(api: Api):
    """Section 2.2.1: fixed at the sign-in, whatever is issued from it later."""
    tokens = api.signed_in()
    first = part(tokens["access_token"], 1)
    second = part(granted(api.refresh(tokens["refresh_token"]))["access_token"], 1)
    same = ("iss", "sub", "aud", "client_id", "sid", "auth_time", "acr", "amr", "scope", "roles")
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    assert first["jti"] != second["jti"]


def test_subject_of_a_client_s_own_token_is_the_client(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """Section 2.2; RFC 9700 section 4.15: no client can take a user's identifier."""
    claims = part(granted(api.token(confidential, grant_type="client_credentials"))["access_token"], 1)
    assert (claims["sub"], claims["client_id"]) == ("backend", "backend")
    assert not {"sid", "auth_time", "acr", "amr"} & claims.keys()
    user_id = UUID(api.register()["id"])
    for spelling in (str(user_id), user_id.hex, str(user_id).upper()):
        with pytest.raises(Invalid):
            rooms.clients.create(client_id=spelling, client_name="X", grant_types=["client_credentials"])


def test_audience_is_the_resource_never_the_client(api: Api, rooms: Rooms):
    """Sections 2.2 and 3; section 4: what is for another resource is refused here."""
    _, secret = rooms.clients.create(
        client_id="elsewhere",
        client_name="E",
        grant_types=["client_credentials"],
        scope=["posts:create"],
        audience=["https://api.example.org", "https://other.example.org"],
    )
    token = granted(api.token(("elsewhere", str(secret)), grant_type="client_credentials"))["access_token"]
    assert part(token, 1)["aud"] == ["https://api.example.org", "https://other.example.org"]
    refused(api.me(token), 401, "invalid_token")
    assert "elsewhere" not in part(api.signed_in()["access_token"], 1)["aud"]


def test_lifetime_is_the_configured_one(apps: Apps):
    api = Api(apps(access_token_ttl=60, audience="https://api.example.org").test_client())
    tokens = api.signed_in()
    claims = part(tokens["access_token"], 1)
    assert (tokens["expires_in"], claims["exp"] - claims["iat"]) == (60, 60)
    assert claims["aud"] == "https://api.example.org"
    granted(api.me(tokens["access_token"]))


def test_forged_tokens_are_refused(api: Api, rooms: Rooms):
    """Section 4, RFC 8725 sections 3.1 to 3.11: by algorithm, key, header, type and claims."""
    token = api.signed_in()["access_token"]
    header, claims = part(token, 0), part(token, 1)
    signing_input, _, signature = token.rpartition(".")
    signer = rooms.keys.signer("RS256")
    public = rooms.keys.jwks_bytes
    keys = granted(api.http.get("/.well-known/jwks.json"))["keys"]
    jwk = next(key for key in keys if key["kid"] == header["kid"])
    pem = RSAKey.import_key(jwk).as_pem(private=False)
    now = int(time.time())

    def really_signed(head: dict[str, Any], body: Any = claims) -> str:
        text = f"{b64(head)}.{b64(body)}"
        return f"{text}.{b64(signer.sign(text.encode()))}"

    def by_hmac(key: bytes, alg: str = "HS256") -> str:
        text = f"{b64({**header, 'alg': alg})}.{b64(claims)}"
        return f"{text}.{b64(hmac.digest(key, text.encode(), sha256))}"

    assert api.me(really_signed(header)).status_code == 200  # the forgery itself works
    forged = {
        "none": f"{b64({**header, 'alg': 'none'})}.{b64(claims)}.",
        "nOnE": f"{b64({**header, 'alg': 'nOnE'})}.{b64(claims)}.",
        "none with the signature": f"{b64({**header, 'alg': 'none'})}.{b64(claims)}.{signature}",
        "HS256 with the public key": by_hmac(pem),
        "HS256 with the JWKS": by_hmac(public),
        "HS256 with nothing": by_hmac(b""),
        "another algorithm of the key": really_signed({**header, "alg": "PS256"}),
        "an algorithm in lower case": really_signed({**header, "alg": "rs256"}),
        "no signature": f"{signing_input}.",
        "another payload": f"{b64(header)}.{b64({**claims, 'roles': ['admin']})}.{signature}",
        "unknown kid": really_signed({**header, "kid": "unknown"}),
        "no kid": really_signed({"typ": "at+jwt", "alg": "RS256"}),
        "a path as kid": really_signed({**header, "kid": "../../keys/active.pem"}),
        "NUL in the kid": really_signed({**header, "kid": header["kid"] + "\0"}),
        "its own key": really_signed({**header, "jwk": jwk}),
        "a place for keys": really_signed({**header, "jku": "http://127.0.0.1:9/jwks"}),
        "a certificate": really_signed({**header, "x5c": ["MIIB"]}),
        "a place for certificates": really_signed({**header, "x5u": "http://127.0.0.1:9/x"}),
        "an unknown extension": really_signed({**header, "crit": ["exp"], "exp": 1}),
        "an unencoded payload": really_signed({**header, "b64": False, "crit": ["b64"]}),
        "compression": really_signed({**header, "zip": "DEF"}),
        "five parts": f"{token}.x.y",
        "JSON serialization": json.dumps({"payload": b64(claims), "signatures": []}).replace(" ", ""),
        "a list of claims": really_signed(header, [claims]),
        "duplicate claims": really_signed(header, b'{"sub": "a", "sub": "b"}'),
        "another type": sign_jwt(signer, "JWT", claims),
        "an expired one": sign_jwt(signer, "at+jwt", {**claims, "exp": now - 1, "jti": new_jti(1)}),
        "an infinite one": sign_jwt(signer, "at+jwt", {**claims, "exp": float("inf")}),
        "an end that is true": sign_jwt(signer, "at+jwt", {**claims, "exp": True}),
        "an end that is text": sign_jwt(signer, "at+jwt", {**claims, "exp": str(now + 60)}),
        "a list of issuers": sign_jwt(signer, "at+jwt", {**claims, "iss": [claims["iss"]]}),
        "a number as subject": sign_jwt(signer, "at+jwt", {**claims, "sub": 1}),
        "a number as jti": sign_jwt(signer, "at+jwt", {**claims, "jti": 1}),
        "60 KB": f"{b64(header)}.{'A' * 60_000}.{signature}",
    }
    for what, bad in forged.items():
        response = api.me(bad)
        assert response.status_code in {400, 401}, what
        refused(
            response, response.status_code, "invalid_token" if response.status_code == 401 else "invalid_request"
        )
        assert api.introspect(("nobody", "x"), bad).status_code == 401
        granted(api.revoke(bad))  # which changes nothing:
    granted(api.me(token))
