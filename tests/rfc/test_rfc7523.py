"""RFC 7523, and OpenID Connect Core section 9: clients that prove by a JWT who they are."""

import hashlib
import hmac
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT
from flask import Flask
from joserfc.jwk import OctKey
from sqlalchemy import func, select

from tests.answers import granted, refused
from tests.assertions import ABSENT, KEYS, TYPE, Assertor, by_key, by_secret, public, segment, signed
from tests.conftest import Api, Apps
from tokenserver.clients import client_secret
from tokenserver.oauth.models import UsedAssertion
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now

ONE_BACKEND = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def token(api: Api, form: dict[str, str], **more: str) -> Any:
    return api.token(None, grant_type="client_credentials", **form, **more)


def denied(api: Api, form: dict[str, str], **more: str) -> None:
    """RFC 7521 section 4.2.1, with the one sentence of every failed authentication."""
    answer = refused(token(api, form, **more), 401, "invalid_client")
    assert answer.json["error_description"] == "Client authentication failed."


def test_client_by_its_key_or_by_its_secret(api: Api, rooms: Rooms):
    """Section 2.2; at each endpoint where clients authenticate, addressed as OpenID Connect Core section 9 and
    RFC 9126 section 2 say."""
    issuer = rooms.settings.issuer
    for assertor in (*(by_key(rooms, alg) for alg in KEYS), by_secret(rooms)):
        body = granted(token(api, assertor.form()))
        granted(token(api, assertor.form(aud=f"{issuer}/oauth/token"), client_id=assertor.client_id))
        granted(token(api, assertor.form(aud=["https://else.example", issuer])))
        for path in ("/oauth/introspect", "/oauth/revoke"):
            for aud in (issuer, f"{issuer}{path}", f"{issuer}/oauth/token"):
                form = {"token": body["access_token"]} | assertor.form(aud=aud)
                answer = granted(api.http.post(path, data=form))
                assert answer.get("active", True) is True
                form = {"token": "x"} | assertor.form(aud=f"{issuer}/oauth/par")
                refused(api.http.post(path, data=form), 401, "invalid_client")
        dead = granted(api.http.post("/oauth/introspect", data={"token": body["access_token"]} | assertor.form()))
        assert dead == {"active": False}
        assert body["token_type"] == "Bearer"


# Whole numbers are seconds from now.
CLAIMS: dict[str, Any] = {
    "another iss": {"iss": "job-RS256"},
    "no iss": {"iss": ABSENT},
    "iss as a list": {"iss": ["job-ES256"]},
    "another sub": {"sub": "first-party"},
    "no sub": {"sub": ABSENT},
    "sub as a number": {"sub": 1},
    "a sub that nobody has": {"iss": "nobody", "sub": "nobody"},
    "a sub that no client can have": {"iss": "a\0b\ud800", "sub": "a\0b\ud800"},
    "another aud": {"aud": "https://else.example"},
    "no aud": {"aud": ABSENT},
    "an empty list of aud": {"aud": []},
    "aud null": {"aud": None},
    "aud with more than strings": {"aud": ["{issuer}", 1]},
    "a prefix of the aud": {"aud": "{issuer}/"},
    "no exp": {"exp": ABSENT},
    "an expired one": {"exp": -31},
    "an exp far ahead": {"exp": 3700},
    "an exp as text": {"exp": "2099"},
    "an exp that is true": {"exp": True},
    "an endless exp": {"exp": float("inf")},
    "an exp that is no number": {"exp": float("nan")},
    "a huge exp": {"exp": 1e300},
    "an nbf ahead": {"nbf": 61},
    "an iat ahead": {"iat": 61},
    "an nbf as text": {"nbf": "now"},
    "an iat null": {"iat": None},
    "no jti": {"jti": ABSENT},
    "an empty jti": {"jti": ""},
    "a jti as a number": {"jti": 5},
    "a jti without end": {"jti": "x" * 256},
}
HEADERS: dict[str, Any] = {
    "alg none": {"alg": "none"},
    "alg in other letters": {"alg": "es256"},
    "no alg": {"alg": ABSENT},
    "an alg of another key": {"alg": "RS256"},
    "a MAC": {"alg": "HS256"},
    "an unknown kid": {"kid": "RS256"},
    "a kid as a path": {"kid": "../../etc/passwd"},
    "a kid with NUL": {"kid": "ES256\0"},
    "an empty kid": {"kid": ""},
    "a kid as a number": {"kid": 1},
    "crit": {"crit": ["exp"]},
    "an unencoded payload": {"b64": False, "crit": ["b64"]},
    "jku": {"jku": "http://127.0.0.1:1/"},
    "x5u": {"x5u": "http://127.0.0.1:1/"},
    "jwk": {"jwk": public("ES256")},
    "x5c": {"x5c": ["MIIB"]},
    "zip": {"zip": "DEF"},
    "p2c": {"p2c": 100_000_000},
    "an access token's typ": {"typ": "at+jwt"},
    "a request object's typ": {"typ": "oauth-authz-req+jwt"},
    "a logout token's typ": {"typ": "logout+jwt"},
    "a typ as a number": {"typ": 1},
}


def _moved(claims: dict[str, Any], issuer: str) -> dict[str, Any]:
    now = time.time()
    return {
        name: now + value
        if name in {"exp", "nbf", "iat"} and type(value) is int
        else issuer + "/"
        if value == "{issuer}/"
        else value
        for name, value in claims.items()
    }


@ONE_BACKEND
def test_assertion_that_is_wrong_in_one_way(api: Api, rooms: Rooms):
    """Section 3; RFC 8725 sections 2 and 3. None of them uses the jti up."""
    by_key(rooms, "RS256")
    assertor, mac = by_key(rooms), by_secret(rooms)
    forms = {what: assertor.form(header=header, jti="the-one") for what, header in HEADERS.items()}
    for each in (assertor, mac):
        for what, claims in CLAIMS.items():
            form = each.form(**{"jti": "the-one"} | _moved(claims, rooms.settings.issuer))
            forms[f"{what}, {each.alg}"] = form
    given = {what: token(api, form) for what, form in forms.items()}
    assert {what for what, answer in given.items() if answer.status_code != 401} == set()
    for answer in given.values():
        refused(answer, 401, "invalid_client")
    granted(token(api, assertor.form(jti="the-one")))
    granted(token(api, mac.form(jti="the-one")))


@ONE_BACKEND
def test_clocks_may_differ_a_little(api: Api, rooms: Rooms):
    """Section 3, points 4 and 5; FAPI 2.0 Security Profile section 5.3.2.1: 8 seconds are accepted, 61 are not."""
    for assertor in (by_key(rooms), by_secret(rooms)):
        now = time.time()
        granted(token(api, assertor.form(nbf=now + 8, iat=now + 8.5, exp=now + 300.25)))
        granted(token(api, assertor.form(exp=now - 5)))
        granted(token(api, assertor.form(exp=int(now) + 3600)))
        granted(token(api, assertor.form(iat=ABSENT)))


def test_assertion_works_once(api: Api, rooms: Rooms, app: Flask, apps: Apps):
    """Section 3, point 7: also for 20 at once, at two servers, at another endpoint; of another client it is another
    one."""
    assertor = by_key(rooms)
    form = assertor.form(jti="once")
    other = apps()

    def ask(number: int) -> int:
        client = (app, other)[number % 2].test_client()
        return int(client.post("/oauth/token", data={"grant_type": "client_credentials"} | form).status_code)

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(ask, range(20))) == [200] + [401] * 19
    denied(api, assertor.form(jti="once"))
    refused(api.http.post("/oauth/revoke", data={"token": "x"} | assertor.form(jti="once")), 401, "invalid_client")
    granted(token(api, by_secret(rooms).form(jti="once")))


@ONE_BACKEND
def test_used_assertions_are_forgotten_when_they_are_expired(api: Api, rooms: Rooms):
    """Section 3, point 7: not before. A clock that goes backwards a little revives none."""
    assertor = by_key(rooms)
    granted(token(api, assertor.form()))
    digest = hashlib.sha256(b"job-ES256\0old").digest()
    kept = utc_now() - timedelta(seconds=1)
    rooms.database.write(lambda tx: tx.add(UsedAssertion(digest=digest, expires_at=kept)))
    assert rooms.client_authentication.purge() == 1
    assert rooms.client_authentication.purge() == 0
    row = rooms.database.read(lambda tx: tx.scalars(select(UsedAssertion)).one())
    assert row.expires_at > utc_now() + timedelta(seconds=60 + 30)


@ONE_BACKEND
def test_one_method_in_a_request(api: Api, rooms: Rooms, confidential: tuple[str, str]):
    """RFC 6749 section 2.3; RFC 7521 section 4.2."""
    assertor = by_key(rooms)
    form = assertor.form()
    grant = {"grant_type": "client_credentials"}
    basic = api.http.post("/oauth/token", data=grant | form, auth=confidential)
    refused(basic, 400, "invalid_request")
    refused(token(api, form, client_secret="x"), 400, "invalid_request")
    refused(token(api, form, client_id=assertor.client_id, client_secret="x"), 400, "invalid_request")
    half = api.http.post("/oauth/token", data=grant | {"client_assertion_type": TYPE}, auth=confidential)
    refused(half, 400, "invalid_request")
    denied(api, form, client_id="first-party")
    denied(api, {"client_assertion_type": TYPE}, client_id=assertor.client_id)
    denied(api, {"client_assertion": form["client_assertion"]})
    for kind in ("urn:ietf:params:oauth:client-assertion-type:saml2-bearer", TYPE.upper(), "jwt-bearer"):
        denied(api, form | {"client_assertion_type": kind})
    for assertion in ("x", "a.b.c", "..", form["client_assertion"] + ".a.b", form["client_assertion"] + "="):
        denied(api, form | {"client_assertion": assertion})
    denied(api, {}, client_id=assertor.client_id)
    denied(api, {}, client_id=assertor.client_id, client_secret="x")
    granted(token(api, form))


@ONE_BACKEND
def test_method_and_algorithm_are_those_registered(api: Api, rooms: Rooms):
    """OIDC Registration section 2, token_endpoint_auth_signing_alg. A client of one method has no other.

    RFC 8725 section 2.1: and a public key makes no MAC.
    """
    both = {"keys": [public("RS256"), public("ES256")]}
    picky = by_key(rooms, "ES256", "picky", jwks=both, token_endpoint_auth_signing_alg="ES256")
    granted(token(api, picky.form()))
    denied(api, Assertor("picky", KEYS["RS256"], "RS256", "RS256", picky.issuer).form())
    bound = by_key(rooms, "RS256", "bound", jwks={"keys": [public("RS256", alg="PS256")]})
    denied(api, bound.form())
    granted(token(api, Assertor("bound", KEYS["PS256"], "PS256", "RS256", bound.issuer).form()))
    # the public key, as it may be spelled, as a shared secret; libraries refuse to make these
    now = time.time()
    claims = {"iss": "bound", "sub": "bound", "aud": picky.issuer, "jti": "n", "exp": now + 60}
    head = f"{segment({'alg': 'HS256', 'kid': 'RS256'})}.{segment(claims)}"
    for secret in (pem := KEYS["RS256"].as_pem(private=False), pem.strip(), KEYS["RS256"].as_der(private=False)):
        assertion = f"{head}.{segment(hmac.digest(secret, head.encode(), 'sha256'))}"
        denied(api, {"client_assertion_type": TYPE, "client_assertion": assertion})
    secret_holder = by_secret(rooms)
    denied(api, Assertor("mac", KEYS["ES256"], "ES256", "ES256", picky.issuer).form())
    denied(api, {}, client_id="mac", client_secret=secret_holder.key.as_dict()["k"])
    payload = {"iss": "picky", "sub": "picky", "aud": picky.issuer, "jti": "n", "exp": time.time() + 60}
    unsigned = f"{segment({'alg': 'none'})}.{segment(payload)}."
    denied(api, {"client_assertion_type": TYPE, "client_assertion": unsigned})
    duplicate = b'{"iss":"picky","sub":"picky","aud":"%s","jti":"n","exp":%d,"exp":%d}'
    duplicate %= picky.issuer.encode(), time.time() + 60, time.time() + 60
    assertion = signed({"alg": "ES256", "kid": "ES256"}, duplicate, KEYS["ES256"], "ES256")
    denied(api, {"client_assertion_type": TYPE, "client_assertion": assertion})


@ONE_BACKEND
def test_audience_of_a_client_that_names_the_issuer_alone(api: Api, rooms: Rooms):
    """FAPI 2.0 Security Profile section 5.3.2.1: the issuer, as a string."""
    assertor = by_key(rooms, assertion_audience="issuer")
    issuer = rooms.settings.issuer
    for aud in ([issuer], [issuer, "https://else.example"], f"{issuer}/oauth/token", f"{issuer}/", issuer.upper()):
        denied(api, assertor.form(aud=aud))
    granted(token(api, assertor.form()))


@ONE_BACKEND
def test_assertion_is_kept_nowhere(api: Api, rooms: Rooms):
    """What is used up is a digest."""
    granted(token(api, by_key(rooms).form(jti="a-readable-jti")))
    assert rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(UsedAssertion))) == 1
    row = rooms.database.read(lambda tx: tx.scalars(select(UsedAssertion)).one())
    assert row.digest == hashlib.sha256(b"job-ES256\0a-readable-jti").digest()


@ONE_BACKEND
def test_a_client_library_authenticates(app: Flask, rooms: Rooms):
    """Authlib's, by both methods: it makes the assertion and puts it into the form."""
    url = f"{rooms.settings.issuer}/oauth/token"
    for assertor in (by_key(rooms, "RS256"), by_secret(rooms)):
        is_mac = assertor.alg == "HS256"
        secret = assertor.key.raw_value.decode() if is_mac else KEYS["RS256"].as_pem(private=True).decode()
        method = ClientSecretJWT(url) if is_mac else PrivateKeyJWT(url)
        authentication = ClientAuth(assertor.client_id, secret, method)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        _, headers, body = authentication.prepare("POST", url, form, "grant_type=client_credentials")
        granted(app.test_client().post("/oauth/token", data=body, headers=headers))


@ONE_BACKEND
def test_secret_that_is_kept_is_sealed(api: Api, rooms: Rooms, caplog: pytest.LogCaptureFixture):
    """Kept for this method alone, for this client alone; sealed anew before its key is thrown away."""
    assertor = by_secret(rooms)
    secret = assertor.key.raw_value
    sealed = rooms.clients.get("mac").client_secret_sealed
    assert sealed is not None
    assert secret not in sealed
    plain, _ = rooms.clients.create(client_id="plain", client_name="", grant_types=["client_credentials"])
    assert plain.client_secret_sealed is None
    # another key is the newest now; the old one is still there
    ring = [rooms.keys.secrets("client_secret")]
    rooms.clients._sealing_keys = lambda: ring[0]
    ring[0] = (b"n" * 32, *ring[0])
    granted(token(api, assertor.form()))
    assert (rooms.clients.reseal(), rooms.clients.reseal()) == (1, 0)
    ring[0] = ring[0][:1]
    granted(token(api, assertor.form()))
    # of another client it opens nothing; without its key it proves nothing
    again = rooms.clients.get("mac").client_secret_sealed
    assert client_secret.unseal(again, ring[0], "mac") == secret.decode()
    assert client_secret.unseal(again, ring[0], "plain") is None
    ring[0] = (b"x" * 32,)
    denied(api, assertor.form())
    assert "can't be opened any more" in caplog.text
    assert rooms.clients.reseal() == 0
    # a new secret heals it, and the old one is worth nothing
    new = rooms.feed.change(lambda tx, change: rooms.clients.rotate_secret(tx, change, "mac"))
    denied(api, assertor.form())
    assertor.key = OctKey.import_key(new)
    granted(token(api, assertor.form()))
