"""A relying party that asks what the OpenID Foundation's conformance suite asks, and checks each answer as it does.

What the suite only warns about is a failure here.
"""

import json
import math
import re
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from flask import Flask
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from tests.assertions import TYPE, signed
from tests.person import Landing, Page, Person, Stuck
from tokenserver.app import rooms_of
from tokenserver.rooms import Rooms

ISSUER: Final = "https://id.example"
CALLBACK: Final = "https://suite.example/test/a/tokenserver/callback"
DISCOVERY: Final = "/.well-known/openid-configuration"
FORM: Final = "application/x-www-form-urlencoded"
NOT_SIGNED_IN: Final = frozenset(
    {"login_required", "interaction_required", "account_selection_required", "consent_required"}
)
KEY: Final = RSAKey.generate_key(2048, {"kid": "rp"})
PROFILE: Final = """name given_name family_name middle_name nickname profile picture website gender birthdate
    zoneinfo locale updated_at preferred_username"""
# OIDC Core section 5.4
CLAIMS: Final[Mapping[str, frozenset[str]]] = {
    "profile": frozenset(PROFILE.split()),
    "email": frozenset({"email", "email_verified"}),
    "address": frozenset({"address"}),
    "phone": frozenset({"phone_number", "phone_number_verified"}),
}
STANDARD: Final = frozenset().union(*CLAIMS.values())
ADDRESS: Final = frozenset({"formatted", "street_address", "locality", "region", "postal_code", "country"})
# Of a person who has every standard claim.
PERSON: Final[dict[str, Any]] = {
    "given_name": "Ann",
    "family_name": "Example",
    "middle_name": "Beatrix",
    "nickname": "Annie",
    "profile": "https://ann.example/",
    "picture": "https://ann.example/ann.png",
    "website": "https://ann.example/blog",
    "gender": "female",
    "birthdate": "1990-01-02",
    "zoneinfo": "Europe/Berlin",
    "locale": "de-DE",
    "phone_number": "+49301234567",
    "address": {"street_address": "Road 1", "locality": "Berlin", "postal_code": "10115", "country": "DE"},
}
EXTRAS: Final = "iss aud exp iat sub nonce auth_time acr amr azp sid jti nbf at_hash c_hash s_hash"
ID_TOKEN_EXTRAS: Final = frozenset(EXTRAS.split())
ERROR_PARAMETERS: Final = frozenset({"error", "error_description", "error_uri", "state", "session_state", "iss"})
DESCRIPTION: Final = re.compile(r"[\x20-\x21\x23-\x5B\x5D-\x7E]*")
FIFTY_YEARS: Final = 50 * 365 * 86400


# What holds in every module


def check_discovery(document: Mapping[str, Any]) -> None:
    for name in ("issuer", "authorization_endpoint", "token_endpoint"):
        assert urlsplit(document[name]).hostname, name
    assert document["issuer"] == ISSUER


def check_keys(key_set: Mapping[str, Any]) -> None:
    needed = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}
    kids = [key["kid"] for key in key_set["keys"]]
    assert kids
    assert len(kids) == len(set(kids))
    for key in key_set["keys"]:
        assert not key.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, "a private member"
        assert needed[key["kty"]] <= key.keys()
        assert key.get("crv", "P-256") in {"P-256", "P-384", "P-521", "Ed25519"}
        for member in key.keys() & {"n", "e", "x", "y"}:
            assert re.fullmatch(r"[A-Za-z0-9_-]+", key[member]), "base64url without padding"


def check_landing(landing: Landing, sent: Mapping[str, str]) -> None:
    """The authorization response: place, state, iss; no word too many."""
    parts, own = urlsplit(landing.url), urlsplit(sent["redirect_uri"]).query
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = parse_qsl(own, keep_blank_values=True)
    assert query[: len(kept)] == kept, "the query of the redirect URI survives"
    front = {"token", "id_token"} & set(sent.get("response_type", "").split())
    mode = sent.get("response_mode") or ("fragment" if front else "query")
    if mode == "form_post":
        assert landing.body is not None
        assert query == kept
        assert not parts.fragment
    elif mode == "fragment":
        assert query == kept
        assert parts.fragment
    else:
        assert not parts.fragment
    parameters = landing.parameters
    assert parameters.get("state") == sent.get("state"), "byte for byte, and none where none was sent"
    assert parameters["iss"] == ISSUER
    if "error" in parameters:
        assert parameters.keys() <= ERROR_PARAMETERS
        assert DESCRIPTION.fullmatch(parameters.get("error_description", ""))
        return
    expected = {{"token": "access_token"}.get(word, word) for word in sent["response_type"].split()}
    assert expected <= parameters.keys()
    with_token = {"access_token", "token_type", "expires_in", "scope"} if "access_token" in expected else set()
    assert parameters.keys() <= expected | with_token | {"state", "iss", "session_state"}
    if "code" in parameters:
        check_entropy(parameters["code"])


def check_entropy(value: str) -> None:
    assert len(value) * 8 >= 128
    shares = [count / len(value) for count in Counter(value).values()]
    assert -sum(share * math.log2(share) for share in shares) * len(value) >= 96


def check_token_response(response: TestResponse) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert response.mimetype == "application/json"
    # RFC 6749 section 5.1
    assert response.headers["Cache-Control"] == "no-store"
    body = dict(response.json or {})
    assert body["token_type"].lower() == "bearer"
    assert type(body["expires_in"]) is int
    assert 0 < body["expires_in"] <= 365 * 86400
    check_entropy(body["access_token"])
    return body


def check_refused(response: TestResponse, *errors: str) -> None:
    """The token endpoint's, and the registration endpoint's."""
    assert response.mimetype == "application/json"
    body = dict(response.json or {})
    assert body["error"] in errors
    assert response.status_code in ({400, 401} if body["error"] == "invalid_client" else {400})
    assert DESCRIPTION.fullmatch(body.get("error_description", ""))


def check_id_token(
    claims: Mapping[str, Any], client_id: str, *, nonce: str | None, code: str | None, access_token: str | None
) -> None:
    """`code`, `access_token`: that came along in the front channel, or None."""
    now = time.time()
    assert claims["iss"] == ISSUER
    audience = claims["aud"]
    assert client_id in (audience if isinstance(audience, list) else [audience])
    assert now < claims["exp"] < now + FIFTY_YEARS
    assert abs(claims["iat"] - now) < 300
    assert claims.get("nonce") == nonce
    assert claims.get("acr", "-")
    if "auth_time" in claims:
        assert type(claims["auth_time"]) is int
        assert now - 365 * 86400 < claims["auth_time"] <= now + 1
    assert re.fullmatch(r"[\x20-\x7E]{1,255}", claims["sub"])
    for name, value in (("c_hash", code), ("at_hash", access_token)):
        if value is not None:
            assert claims[name] == half_hash(value), name
    check_claims(claims)


def half_hash(value: str) -> str:
    """OIDC Core section 3.1.3.6, for RS256."""
    return urlsafe_b64encode(sha256(value.encode()).digest()[:16]).rstrip(b"=").decode()


def check_claims(claims: Mapping[str, Any]) -> None:
    """Standard claims that are there have their types, and are neither blank nor "null"."""
    for name in claims.keys() & STANDARD:
        value = claims[name]
        if name in {"email_verified", "phone_number_verified"}:
            assert isinstance(value, bool), name
        elif name == "updated_at":
            assert 631152000 < value <= time.time() + 1
        elif name == "address":
            assert value.keys() <= ADDRESS
            assert value
            assert all(isinstance(part, str) and part.strip() for part in value.values())
        else:
            assert isinstance(value, str), name
            assert value.strip(), name
            assert value != "null", name
    birthdate = claims.get("birthdate", "1990")
    assert re.fullmatch(r"(?:0000|[0-9]{4})-[0-9]{2}-[0-9]{2}|[0-9]{4}", birthdate)
    assert birthdate.startswith("0000-") or int(birthdate[:4]) >= 1850


# Who asks


@dataclass
class RelyingParty:
    """A client. `method`: of client authentication. `registration`: the answer to a dynamic one."""

    client_id: str
    secret: str | None
    method: str
    redirect_uri: str = CALLBACK
    key: Any = field(default_factory=lambda: KEY)
    registration: dict[str, Any] = field(default_factory=dict)

    def credentials(self, audience: str) -> dict[str, Any]:
        """What goes with a request to the token endpoint: options of Flask's test client."""
        if self.method == "client_secret_basic":
            return {"auth": (self.client_id, str(self.secret))}
        if self.method == "client_secret_post":
            return {"data": {"client_id": self.client_id, "client_secret": str(self.secret)}}
        return {"data": {"client_assertion_type": TYPE, "client_assertion": self.assertion(audience)}}

    def assertion(self, audience: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.client_id, "sub": self.client_id, "aud": audience, "jti": uuid.uuid4().hex,
            "iat": now, "exp": now + 60,
        }  # fmt: skip
        return self.signed(claims)

    def signed(self, claims: Mapping[str, Any], alg: str = "RS256", **header: Any) -> str:
        return signed({"alg": alg, "kid": self.key.kid} | header, dict(claims), self.key, alg)


class Provider:
    """The server under test, by its issuer's https address."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.http = app.test_client()

    @property
    def rooms(self) -> Rooms:
        return rooms_of(self.app)

    def ask(self, url: str, method: str = "GET", **options: Any) -> TestResponse:
        """As the client's own server would, without a browser's cookies. `url`: on this server, whole or a path."""
        parts = urlsplit(url)
        assert parts.netloc in {"", urlsplit(ISSUER).netloc}, url
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return self.http.open(path, base_url=ISSUER, method=method, **options)

    @cached_property
    def discovery(self) -> dict[str, Any]:
        response = self.ask(DISCOVERY)
        assert (response.status_code, response.mimetype) == (200, "application/json")
        document = dict(response.json or {})
        check_discovery(document)
        return document

    def keys(self) -> jwt.PyJWKSet:
        response = self.ask(self.discovery["jwks_uri"])
        key_set = dict(response.json or {})
        check_keys(key_set)
        return jwt.PyJWKSet.from_dict(key_set)

    def verified(self, token: str, client_id: str, alg: str = "RS256") -> dict[str, Any]:
        """The claims of a token that was signed for this client, and whose header says by which key."""
        header = jwt.get_unverified_header(token)
        assert header["alg"] == alg
        key = self.keys()[header["kid"]]
        return dict(jwt.decode(token, key, algorithms=[alg], audience=client_id, issuer=ISSUER, leeway=2))

    def client(self, client_id: str | None = None, **metadata: Any) -> RelyingParty:
        """One that the operator registers: static, in the suite's words."""
        defaults: dict[str, Any] = {
            "client_name": "OIDF conformance suite",
            "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code", "implicit", "refresh_token"],
            "response_types": sorted(self.discovery["response_types_supported"]),
            "scope": ["openid", "profile", "email", "address", "phone", "offline_access"],
            "token_endpoint_auth_method": "client_secret_basic",
        }
        given = defaults | metadata
        row, secret = self.rooms.clients.create(client_id=client_id or f"suite-{uuid.uuid4().hex[:12]}", **given)
        redirect_uri = next(iter(given["redirect_uris"]), CALLBACK)
        return RelyingParty(row.client_id, secret, given["token_endpoint_auth_method"], redirect_uri)

    def registering(self, response_type: str = "code", **metadata: Any) -> TestResponse:
        """What the suite sends for each module of a plan with dynamic registration; None leaves a member out."""
        grant_types = {"authorization_code"} if "code" in response_type.split() else set()
        grant_types |= {"implicit"} if {"token", "id_token"} & set(response_type.split()) else set()
        defaults: dict[str, Any] = {
            "client_name": "OIDF conformance suite",
            "contacts": ["certification@oidf.org"],
            "redirect_uris": [CALLBACK],
            "grant_types": sorted(grant_types),
            "response_types": [response_type],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [KEY.as_dict(private=False) | {"use": "sig", "alg": "RS256"}]},
        }
        sent = {name: value for name, value in (defaults | metadata).items() if value is not None}
        return self.ask(self.discovery["registration_endpoint"], "POST", json=sent)

    def register(self, response_type: str = "code", **metadata: Any) -> RelyingParty:
        response = self.registering(response_type, **metadata)
        assert (response.status_code, response.mimetype) == (201, "application/json"), response.text
        body = dict(response.json or {})
        assert "client_secret" not in body or "client_secret_expires_at" in body
        assert body["registration_client_uri"].startswith("https://")
        assert body["registration_access_token"]
        redirect_uri = body["redirect_uris"][0]
        return RelyingParty(
            body["client_id"],
            body.get("client_secret"),
            body["token_endpoint_auth_method"],
            redirect_uri,
            registration=body,
        )

    def unregister(self, client: RelyingParty) -> None:
        """As every module with a dynamic client ends."""
        headers = {"Authorization": f"Bearer {client.registration['registration_access_token']}"}
        response = self.ask(client.registration["registration_client_uri"], "DELETE", headers=headers)
        assert response.status_code == 204


class Module:
    """One run: a client, and a browser of its own that starts signed out.

    `plan`: parameters that every request has, such as the response mode.
    """

    def __init__(self, provider: Provider, client: RelyingParty, plan: Mapping[str, str], username: str) -> None:
        self.provider = provider
        self.client = client
        self.plan = plan
        self.username = username
        self.sent: dict[str, str] = {}
        self.person = self.new_person()

    def new_person(self) -> Person:
        return Person.on(self.provider.app.test_client(), ISSUER, self.username)

    def request(self, **parameters: str | None) -> dict[str, str]:
        """`parameters`: None leaves one out that would be there."""
        usual: dict[str, str | None] = {
            "client_id": self.client.client_id,
            "redirect_uri": self.client.redirect_uri,
            "scope": "openid",
            "state": uuid.uuid4().hex[:10],
            "nonce": uuid.uuid4().hex[:10],
            "response_type": "code",
            **self.plan,
        }
        return {name: value for name, value in (usual | parameters).items() if value is not None}

    def url(self, sent: Mapping[str, str]) -> str:
        return f"{self.provider.discovery['authorization_endpoint']}?{urlencode(sent)}"

    def go(
        self, *, method: str = "GET", inside: Mapping[str, str] | None = None, **parameters: str | None
    ) -> Landing:
        """Sends the browser there, signs in and consents where asked; what came back is checked.

        `inside`: parameters of a request object, which count where they differ.
        """
        sent = self.request(**parameters)
        self.sent = sent | dict(inside or {})
        back = self.sent["redirect_uri"]
        if method == "POST":
            endpoint, body = self.provider.discovery["authorization_endpoint"], urlencode(sent).encode()
            found = self.person._go(
                "POST", endpoint, body, back, {"Content-Type": FORM, "Origin": _origin(CALLBACK)}
            )
        else:
            found = self.person.visit(self.url(sent), back)
        landing = self.person.walk(found, back, (*self.person.sign_in_buttons(), "consent-allow"))
        check_landing(landing, self.sent)
        if "id_token" in landing.parameters:
            self.in_front(landing)
        return landing

    def silently(self, **parameters: str | None) -> Landing:
        """With prompt=none: nothing to press, whatever comes."""
        landing = self.go(prompt="none", **parameters)
        assert landing.pressed == []
        return landing

    def page(self, **parameters: str | None) -> Page:
        """The error page that a request ends at, on this server."""
        try:
            landing = self.go(**parameters)
        except Stuck as stuck:
            check_error_page(stuck.page)
            return stuck.page
        raise AssertionError(f"sent on to {landing.url}")

    def redeem(self, landing: Landing, **form: str | None) -> dict[str, Any]:
        """The token response; what is in it is checked. `id_token` is replaced by its claims, the JWT is `jwt`."""
        body = check_token_response(self.redeeming(landing.parameters["code"], **form))
        if "id_token" in body:
            body["jwt"] = body["id_token"]
            body["id_token"] = self.id_token(body["jwt"], access_token=body["access_token"])
        return body

    def redeeming(self, code: str, client: RelyingParty | None = None, **form: str | None) -> TestResponse:
        usual = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.sent.get("redirect_uri")}
        return self.token(client, **(usual | form))

    def token(
        self, client: RelyingParty | None = None, audience: str | None = None, **form: str | None
    ) -> TestResponse:
        endpoint = self.provider.discovery["token_endpoint"]
        options = (client or self.client).credentials(audience or endpoint)
        data = options.pop("data", {}) | {name: value for name, value in form.items() if value is not None}
        return self.provider.ask(endpoint, "POST", data=data, **options)

    def id_token(
        self, token: str, *, code: str | None = None, access_token: str | None = None, alg: str = "RS256"
    ) -> dict[str, Any]:
        claims = self.provider.verified(token, self.client.client_id, alg)
        check_id_token(
            claims, self.client.client_id, nonce=self.sent.get("nonce"), code=code, access_token=access_token
        )
        return claims

    def in_front(self, landing: Landing) -> dict[str, Any]:
        """The claims of the ID token that came by the browser, with the hashes that it must have."""
        parameters = landing.parameters
        return self.id_token(
            parameters["id_token"], code=parameters.get("code"), access_token=parameters.get("access_token")
        )

    def userinfo(self, access_token: str, how: str = "header") -> dict[str, Any]:
        response = self.asking_userinfo(access_token, how)
        assert (response.status_code, response.mimetype) == (200, "application/json"), response.text
        claims = dict(response.json or {})
        assert claims["sub"]
        check_claims(claims)
        return claims

    def asking_userinfo(self, access_token: str, how: str = "header") -> TestResponse:
        endpoint = self.provider.discovery["userinfo_endpoint"]
        header = {"Authorization": f"Bearer {access_token}"}
        if how == "header":
            return self.provider.ask(endpoint, headers=header)
        if how == "post header":
            return self.provider.ask(endpoint, "POST", headers=header, data=b"", content_type=FORM)
        return self.provider.ask(endpoint, "POST", data={"access_token": access_token})

    def signed_in(self, **parameters: str | None) -> dict[str, Any]:
        """A whole run by code: sign-in, tokens, userinfo of the same subject."""
        body = self.redeem(self.go(**parameters))
        assert self.userinfo(body["access_token"])["sub"] == body["id_token"]["sub"]
        return body

    def is_signed_out(self) -> None:
        landing = self.silently()
        assert landing.parameters["error"] in NOT_SIGNED_IN
        assert "code" not in landing.parameters


def check_error_page(page: Page) -> None:
    assert urlsplit(page.url)[:3] == urlsplit(f"{ISSUER}/oauth/authorize")[:3]
    assert page.status == 400
    assert page.headers["Content-Type"].startswith("text/html")
    assert "OAuth error" in page.text
    assert CALLBACK not in page.text


def payload(token: str) -> dict[str, Any]:
    """Not verified."""
    return dict(json.loads(urlsafe_b64decode(token.split(".")[1] + "==")))


def unsigned(claims: Mapping[str, Any]) -> str:
    return str(jwt.encode(dict(claims), None, algorithm="none"))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
