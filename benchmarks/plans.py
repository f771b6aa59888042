"""What is sent on each path: plans for `load`, made from clients, a user and tokens of a deployment."""

import hashlib
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from benchmarks.deployments import ADMIN, PATIENCE, Deployment
from benchmarks.measuring import send
from tests.person import Answer, Person

PASSWORD: Final = "correct horse 7 battery"
REDIRECT_URI: Final = "https://app.example/cb"
VERIFIER: Final = "the-code-verifier-of-the-benchmark-43-letters"
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
# What a path may use up: each answer of these changes something that stays.
MOST: Final = {"revocation": 500, "authorization": 1500}
# In the order in which they are measured: some use up what others made. True: a signature is made or verified, and
# its algorithm matters.
PATHS: Final = {
    "client_credentials": True,
    "refresh": True,
    "password": False,
    "authorization": True,
    "authorization_code": True,
    "introspection": True,
    "revocation": False,
    "/users/me": True,
    "/roles/verify": False,
    "/posts": False,
    "userinfo": True,
    "JWKS": False,
    "discovery": False,
}
# More would only wait in line for it: for the hashes of passwords, and for SQL.
MOST_CONNECTIONS: Final = {"password": 32, "authorization": 32, "authorization_code": 32}
SERVICES: Final = 4
NEEDS: Final = {"authorization_code": "authorization", "revocation": "client_credentials"}

Plan = dict[str, Any]


def request_text(method: str, path: str, headers: dict[str, str], body: str = "") -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    length = [f"Content-Length: {len(body)}"] if method != "GET" else []
    return "\r\n".join([*lines, *length, "", body])


def fixed(*requests: str) -> Plan:
    return {"kind": "fixed", "requests": list(requests)}


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{client_id}:{client_secret}".encode()).decode()}


@dataclass
class Kit:
    """Of one signature algorithm: clients that get such tokens, a user signed in, and tokens.

    `services`: clients with their secrets; with one, its limit would be measured where a token costs little.
    `refresh_tokens`: live ones, that the last plan left. `spare`: access tokens to revoke. `codes`: to exchange.
    """

    services: list[tuple[str, str]]
    app_id: str
    app: dict[str, str]
    connections: int
    cookie: str = ""
    access_tokens: list[str] = field(default_factory=list)
    refresh_tokens: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


class Plans:
    """`connections`: the most that will be asked for."""

    def __init__(self, deployment: Deployment, algs: tuple[str, ...], connections: int) -> None:
        self._url, self._port = deployment.url, deployment.port
        self._http = httpx.Client(base_url=deployment.url, timeout=30, trust_env=False)
        self._admin = {"Authorization": f"Bearer {self._login(*ADMIN)['access_token']}"}
        self.register("bench")
        roles = self._http.get("/roles", headers=self._admin).raise_for_status().json()["items"]
        self._role_id = next(role["id"] for role in roles if role["name"] == "user")
        mine = {"Authorization": f"Bearer {self._login('bench', PASSWORD)['access_token']}"}
        for number in range(20):
            self._post("/posts", headers=mine, json={"title": f"Post {number}", "body": "Words. " * 20})
        self.kits = {alg: self._kit(alg, connections) for alg in algs}

    def plan(self, path: str, alg: str, connections: int) -> Plan:
        """Without its length. Whoever runs it says what came of it (`heard`)."""
        made = self._makers()[path](self.kits[alg])
        return made | {"connections": connections} | ({"most": MOST[path]} if path in MOST else {})

    def heard(self, path: str, alg: str, outcome: dict[str, Any]) -> None:
        kit = self.kits[alg]
        if path == "refresh":
            kit.refresh_tokens = outcome["tokens"]
        elif path == "client_credentials":
            kit.spare = outcome["collected"]
        elif path == "authorization":
            kit.codes = outcome["collected"]

    def renew(self) -> None:
        """Before the access tokens expire: at each round."""
        for kit in self.kits.values():
            self._renew(kit)

    def get(self, path: str, login: str, password: str) -> Plan:
        """Of somebody who signs in for it."""
        bearer = {"Authorization": f"Bearer {self._login(login, password)['access_token']}"}
        return fixed(request_text("GET", path, bearer)) | {"connections": 32}

    def register(self, username: str) -> None:
        user = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        self._post("/auth/register", json=user)

    def _makers(self) -> dict[str, Callable[[Kit], Plan]]:
        return {
            "client_credentials": self._client_credentials,
            "refresh": self._refresh,
            "password": lambda _kit: fixed(self._password()),
            "authorization": lambda kit: fixed(self._authorization(kit)) | {"collect": "code="},
            "authorization_code": self._authorization_code,
            "introspection": lambda kit: self._token_by_token(kit, "/oauth/introspect", kit.access_tokens),
            "revocation": lambda kit: self._token_by_token(kit, "/oauth/revoke", kit.spare) | {"kind": "queue"},
            "/users/me": lambda kit: self._bearing(kit, "/users/me"),
            "/roles/verify": lambda kit: self._bearing(kit, f"/roles/verify?role=user&role_id={self._role_id}"),
            "/posts": lambda kit: self._bearing(kit, "/posts"),
            "userinfo": lambda kit: self._bearing(kit, "/oauth/userinfo"),
            "JWKS": lambda _kit: fixed(request_text("GET", "/.well-known/jwks.json", {})),
            "discovery": lambda _kit: fixed(request_text("GET", "/.well-known/openid-configuration", {})),
        }

    # Requests

    @staticmethod
    def _client_credentials(kit: Kit) -> Plan:
        body = urlencode({"grant_type": "client_credentials"})
        requests = (request_text("POST", "/oauth/token", FORM | basic(*service), body) for service in kit.services)
        return fixed(*requests) | {"collect": '"access_token":'}

    @staticmethod
    def _refresh(kit: Kit) -> Plan:
        head, _, _ = request_text("POST", "/oauth/token", FORM | kit.app).partition("Content-Length")
        body = "grant_type=refresh_token&refresh_token="
        return {
            "kind": "chain",
            "tokens": kit.refresh_tokens,
            "head": head,
            "body": body,
            "member": "refresh_token",
        }

    @staticmethod
    def _password() -> str:
        body = {"grant_type": "password", "client_id": "first-party", "username": "bench", "password": PASSWORD}
        return request_text("POST", "/oauth/token", FORM, urlencode(body))

    @staticmethod
    def _authorization(kit: Kit, scope: str = "openid profile email posts:create") -> str:
        digest = hashlib.sha256(VERIFIER.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": kit.app_id,
            "redirect_uri": REDIRECT_URI,
            "scope": scope,
            "state": "a-state-of-the-benchmark",
            "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return request_text("GET", f"/oauth/authorize?{urlencode(query)}", {"Cookie": kit.cookie})

    @staticmethod
    def _exchange(code: str) -> dict[str, str]:
        known = {"redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER}
        return {"grant_type": "authorization_code", "code": code} | known

    def _authorization_code(self, kit: Kit) -> Plan:
        bodies = [urlencode(self._exchange(code)) for code in kit.codes]
        return {
            "kind": "queue",
            "requests": [request_text("POST", "/oauth/token", FORM | kit.app, b) for b in bodies],
        }

    @staticmethod
    def _token_by_token(kit: Kit, path: str, tokens: list[str]) -> Plan:
        return fixed(
            *(request_text("POST", path, FORM | basic(*kit.services[0]), f"token={token}") for token in tokens)
        )

    @staticmethod
    def _bearing(kit: Kit, path: str) -> Plan:
        return fixed(*(request_text("GET", path, {"Authorization": f"Bearer {t}"}) for t in kit.access_tokens))

    # Preparation

    def _kit(self, alg: str, connections: int) -> Kit:
        common = {"access_token_signed_response_alg": alg, "id_token_signed_response_alg": alg}
        services = [
            self._client(
                client_name=f"service {number} {alg}", grant_types=["client_credentials"],
                scope="posts:create tokens:introspect", **common,
            )
            for number in range(1, SERVICES + 1)
        ]  # fmt: skip
        app = self._client(
            client_name=f"app {alg}", grant_types=["authorization_code", "refresh_token"], first_party=True,
            scope="openid profile email offline_access posts:create", redirect_uris=[REDIRECT_URI], **common,
        )  # fmt: skip
        kit = Kit(services, app[0], basic(*app), connections)
        kit.cookie = self._sign_in(kit)
        self._renew(kit)
        kit.refresh_tokens = self._families(kit, connections)
        return kit

    def _renew(self, kit: Kit) -> None:
        scope = "openid profile email posts:create"
        kit.access_tokens = [self._tokens(kit, scope)["access_token"] for _ in range(min(kit.connections, 32))]

    def _client(self, **metadata: Any) -> tuple[str, str]:
        made = self._post("/clients", headers=self._admin, json=metadata)
        return made["client_id"], made["client_secret"]

    def _sign_in(self, kit: Kit) -> str:
        """The cookies of a browser in which the user has signed in."""
        with httpx.Client(timeout=30, trust_env=False) as browser:

            def send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
                response = browser.request(method, url, headers=headers, content=body)
                return Answer(response.status_code, response.headers, response.text)

            path = self._authorization(kit).split(" ")[1]
            Person(send, self._url, "bench", PASSWORD).authorize(self._url + path, REDIRECT_URI)
            return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

    def _tokens(self, kit: Kit, scope: str) -> dict[str, Any]:
        """By a code, in the browser session of the kit."""
        path = self._authorization(kit, scope).split(" ")[1]
        location = self._http.get(path, headers={"Cookie": kit.cookie}).headers["location"]
        code = httpx.URL(location).params["code"]
        return self._post("/oauth/token", data=self._exchange(code), headers=kit.app)

    def _families(self, kit: Kit, count: int) -> list[str]:
        """A refresh token of each, from several connections at once."""
        ask = fixed(self._authorization(kit, "posts:create")) | {
            "collect": "code=",
            "connections": 8,
            "most": count,
        }
        codes = send(self._port, ask, PATIENCE)["collected"]
        bodies = [request_text("POST", "/oauth/token", FORM | kit.app, urlencode(self._exchange(c))) for c in codes]
        exchange = {"kind": "queue", "requests": bodies, "connections": 8, "collect": '"refresh_token":'}
        begun = list(send(self._port, exchange, PATIENCE)["collected"])
        if len(begun) < count:
            raise SystemExit(f"{len(begun)} of {count} families of refresh tokens began")
        return begun

    def _login(self, login: str, password: str) -> dict[str, Any]:
        return self._post("/auth/login", json={"login": login, "password": password})

    def _post(self, path: str, **options: Any) -> dict[str, Any]:
        response = self._http.post(path, **options)
        if response.is_error:
            raise SystemExit(f"POST {path}: {response.status_code} {response.text[:500]}")
        return dict(json.loads(response.text))
