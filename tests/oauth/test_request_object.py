"""Request objects: by value and by reference, signed by the client, and what is refused."""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.conftest import Api, Apps
from tests.listeners import Listener, listen
from tests.oauth.conftest import CALLBACK, CHALLENGE, Browser, Site, answer, claims_of
from tokenserver.app import rooms_of

__all__ = ["listen"]

RSA, OTHER = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("rsa", "other"))
EC = ECKey.generate_key("P-256", {"kid": "ec"})

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def jwks(*keys: Any) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


@pytest.fixture
def site(site_of: Callable[..., Site]) -> Site:
    return site_of(jwks=jwks(RSA, EC))


def signed(
    issuer: str, key: Any = RSA, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any
) -> str:
    """A whole request; None leaves a claim out."""
    usual = {
        "iss": "app",
        "aud": issuer,
        "exp": int(time.time()) + 60,
        "client_id": "app",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid",
        "state": "inside",
        "nonce": "inside",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    payload = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode({"alg": alg, "kid": key.kid} | (header or {}), payload, key, algorithms=[alg])


@pytest.fixture
def issuer(browser: Browser) -> str:
    return browser.rooms.settings.issuer


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256")])
def test_what_is_inside_wins(browser: Browser, site: Site, issuer: str, key: Any, alg: str):
    """OIDC Core section 6.1: inside before outside, and outside alone what isn't inside."""
    request = signed(issuer, key, alg, redirect_uri=None, scope=None)
    found = answer(browser.authorize(site, request=request))
    assert found["state"] == "inside"
    tokens = browser.redeem(site, found["code"]).json
    assert claims_of(tokens["id_token"])["nonce"] == "inside"
    assert tokens["scope"] == "openid posts:create"


def test_the_strict_type_lets_nothing_from_outside_count(browser: Browser, site: Site, issuer: str):
    """RFC 9101 sections 6.3 and 10.8."""
    strict = {"typ": "oauth-authz-req+jwt"}
    found = answer(browser.authorize(site, request=signed(issuer, header=strict, state=None)))
    assert "state" not in found
    found = answer(browser.authorize(site, request=signed(issuer, header=strict, nonce=None), prompt="none login"))
    assert "nonce" not in claims_of(browser.redeem(site, found["code"]).json["id_token"])


def test_numbers_and_objects_are_parameters(browser: Browser, site: Site, issuer: str):
    request = signed(issuer, max_age=0, prompt="none")
    assert answer(browser.authorize(site, request=request))["error"] == "login_required"
    claims = {"id_token": {"acr": {"essential": True, "values": ["9"]}}}
    request = signed(issuer, claims=claims)
    assert answer(browser.authorize(site, request=request))["error"] == "unmet_authentication_requirements"


def test_what_is_refused(browser: Browser, site: Site, issuer: str):
    """OIDC Core section 6.1, RFC 9101 section 10, RFC 8725 section 3; the client is told."""
    now = int(time.time())
    good = signed(issuer)
    header, payload, signature = good.split(".")
    mac = hmac.digest(RSA.as_pem(private=False), f"eyJhbGciOiJIUzI1NiJ9.{payload}".encode(), "sha256")
    wrong = {
        "no JWT": "x",
        "unsigned": f"eyJhbGciOiJub25lIn0.{payload}.",
        "no signature": f"{header}.{payload}.",
        "altered": f"{header}.{payload}.{signature[:-8]}AAAAAAAA",
        "another key": signed(issuer, OTHER),
        "another key under this kid": signed(issuer, OTHER, header={"kid": "rsa"}),
        "HMAC by the public key": f"eyJhbGciOiJIUzI1NiJ9.{payload}." + urlsafe_b64encode(mac).rstrip(b"=").decode(),
        "another issuer": signed(issuer, iss="other"),
        "another audience": signed(issuer, aud="https://other.example"),
        "another client": signed(issuer, client_id="other"),
        "another response_type": signed(issuer, response_type="code id_token"),
        "expired": signed(issuer, exp=now - 120),
        "not yet": signed(issuer, nbf=now + 600),
        "nested": signed(issuer, request="x"),
        "nested by reference": signed(issuer, request_uri="https://app.example/x"),
        "NUL": signed(issuer, state="\0"),
        "null": jwt.encode({"alg": "RS256", "kid": "rsa"}, {"state": None}, RSA),
        "true": signed(issuer, state=True),
    }
    for what, request in wrong.items():
        found = answer(browser.authorize(site, request=request))
        assert found["error"] == "invalid_request_object", what
        assert found["state"] == "the state", what
    assert "code" in answer(browser.authorize(site, request=good))


def test_a_registered_algorithm_is_the_only_one(browser: Browser, site_of: Callable[..., Site], issuer: str):
    """OIDC Registration section 2, request_object_signing_alg."""
    site = site_of(jwks=jwks(RSA, EC), request_object_signing_alg="ES256")
    assert "code" in answer(browser.authorize(site, request=signed(issuer, EC, "ES256")))
    assert answer(browser.authorize(site, request=signed(issuer)))["error"] == "invalid_request_object"


def test_addresses_inside_are_as_little_trusted(browser: Browser, site: Site, issuer: str):
    """RFC 6749 section 4.1.2.1: an error page, whatever stands outside."""
    response = browser.authorize(site, request=signed(issuer, redirect_uri="https://evil.example/cb"))
    assert (response.status_code, response.mimetype) == (400, "text/html")
    # And the good one inside is used, not the bad one outside.
    found = answer(browser.authorize(site, request=signed(issuer), redirect_uri="https://evil.example/cb"))
    assert "code" in found


# By reference


def document(text: str, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/jwt\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


@pytest.fixture
def fetching(apps: Apps) -> Browser:
    """Of a server that may fetch from this machine."""
    app = apps(fetch_private="127.0.0.0/8")
    Api(app.test_client()).register()
    browser = Browser(app.test_client(), rooms_of(app))
    browser.sign_in()
    return browser


def referring(browser: Browser, *uris: str) -> Site:
    _, secret = browser.rooms.clients.create(
        client_id="app",
        grant_types=["authorization_code"],
        response_types=["code"],
        redirect_uris=[CALLBACK],
        scope=["openid"],
        token_endpoint_auth_method="client_secret_post",
        first_party=True,
        jwks=jwks(RSA),
        request_uris=uris,
    )
    return Site("app", secret)


def test_request_uri_is_fetched(fetching: Browser, listen: Callable[..., Listener]):
    """OIDC Core section 6.2: the fragment tells versions apart and is not sent; no other is asked for."""
    listener = listen(document(signed(fetching.rooms.settings.issuer)))
    uri = f"http://127.0.0.1:{listener.port}/request.jwt#v1"
    site = referring(fetching, uri)
    assert answer(fetching.authorize(site, request_uri=uri))["state"] == "inside"
    assert b"get /request.jwt http/1.1" in listener.requests[0].lower()
    for other in (uri[:-1], uri.partition("#")[0], uri + "x", uri.replace("request.jwt", "admin"), "http://[", "x"):
        assert answer(fetching.authorize(site, request_uri=other))["error"] == "invalid_request_uri"
    assert listener.connections == 1
    listener.answer = document("x" * 20_000)
    assert answer(fetching.authorize(site, request_uri=uri))["error"] == "invalid_request_uri"
    listener.answer = document("not a JWT")
    assert answer(fetching.authorize(site, request_uri=uri))["error"] == "invalid_request_object"
    listener.answer = document("", "302 Found")
    assert answer(fetching.authorize(site, request_uri=uri))["error"] == "invalid_request_uri"


def test_request_uri_leads_nowhere_inside(browser: Browser, listen: Callable[..., Listener]):
    """PYSEC-2026-4360, Keycloak CVE-2020-10770: registered or not, a private address sees nothing."""
    listener = listen(document("x"))
    uri = f"https://127.0.0.1:{listener.port}/request.jwt"
    site = referring(browser, uri)
    assert answer(browser.authorize(site, request_uri=uri))["error"] == "invalid_request_uri"
    assert listener.connections == 0
