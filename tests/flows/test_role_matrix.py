"""The matrix of docs/permissions.md, asked of the application cell by cell."""

import re
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from tests.answers import faults
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Apps, bearer
from tokenserver.identity import links
from tokenserver.identity.links import Purpose
from tokenserver.identity.models import User
from tokenserver.oauth.consent import Wanted
from tokenserver.posts.models import Post
from tokenserver.storage.sql import Transaction, new_id, utc_now
from tokenserver.web.request_context import path_template

DOCUMENT = Path(__file__).parents[2] / "docs/permissions.md"
PEOPLE = ("guest", "user", "owner", "moderator", "admin", "custom", "disabled", "demoted", "client")
# What has no role: protocol endpoints, pages, documents.
OPEN = re.compile(
    r"/(oauth|\.well-known|docs|openapi\.json|healthz|readyz|metrics|login|register|consent|device|account|pages|"
    r"forgot-password|reset-password|verify-email|admin/console)\b|/admin$"
)


def matrix() -> dict[str, dict[str, int]]:
    """Route, perhaps with a variant in parentheses → who → status."""
    rows = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.match(r"(GET|POST|PUT|DELETE) /", cells[0]):
            rows[cells[0]] = dict(zip(PEOPLE, map(int, cells[1:]), strict=True))
    return rows


@pytest.fixture
def settings(settings, tmp_path):
    return replace(settings, keys_dir=tmp_path / "keys", signing_alg="ES256", jwks_max_age=0, rate_limits=False)


@pytest.fixture
def apps(settings):
    made = Apps(settings)
    yield made
    made.close()


@dataclass
class World:
    """Everybody's tokens, and something to ask about that is new for each cell."""

    api: Any
    rooms: Any
    tokens: dict[str, dict[str, str]]
    ids: dict[str, str]

    def __post_init__(self):
        self._numbers = count(1)

    def name(self) -> str:
        return f"thing-{next(self._numbers)}"

    def post(self, *, public: bool) -> UUID:
        row = Post(
            id=new_id(),
            author_id=UUID(self.ids["owner"]),
            title="t",
            body="b",
            public=public,
            created_at=utc_now(),
        )
        self.rooms.database.write(lambda tx: tx.add(row))
        return row.id

    def role(self) -> str:
        name = self.name()
        admin = bearer(self.tokens["admin"]["access_token"])
        assert self.api.http.post("/roles", json={"name": name}, headers=admin).status_code == 201
        return name

    def client(self) -> str:
        return self.rooms.clients.create(client_name="", grant_types=["client_credentials"], scope=[])[0].client_id

    def consent(self) -> str:
        """The id of a client that the owner let have something."""
        client_id = self.client()
        wanted = Wanted(frozenset({"openid"}), frozenset())
        self.rooms.consents.remember(UUID(self.ids["owner"]), client_id, wanted)
        return client_id

    def link(self, purpose: Purpose) -> str:
        """The token of a link that was mailed to somebody new."""
        name = self.name()
        self.api.register(name)

        def mint(tx: Transaction) -> str:
            return links.mint(tx, tx.scalars(select(User).where(User.username == name)).one(), purpose)

        return str(self.rooms.database.write(mint))

    def session(self) -> str:
        """Another one of the owner's."""
        token = self.api.login("owner")["access_token"]
        sessions = self.api.http.get("/users/me/sessions", headers=bearer(token)).json["items"]
        return next(session["id"] for session in sessions if session["current"])

    def request(self, route: str, who: str) -> tuple[str, dict[str, Any] | None]:
        """Path and body."""
        name = self.name()
        private = route.endswith("(private)")
        admin_role = {"roles": ["user"]}
        fillers = {
            "POST /auth/register": lambda: (
                "/auth/register",
                {"username": name, "email": f"{name}@example.org", "password": PASSWORD},
            ),
            "POST /auth/login": lambda: ("/auth/login", {"login": "owner", "password": PASSWORD}),
            "POST /auth/refresh": lambda: (
                "/auth/refresh",
                {"refresh_token": self.tokens[who].get("refresh_token", "rt_none")},
            ),
            "POST /auth/password/forgot": lambda: ("/auth/password/forgot", {"email": f"{name}@example.org"}),
            "POST /auth/password/reset": lambda: (
                "/auth/password/reset",
                {"token": self.link(Purpose.PASSWORD), "password": PASSWORD},
            ),
            "POST /auth/verify-email/request": lambda: (
                "/auth/verify-email/request",
                {"email": f"{name}@example.org"},
            ),
            "POST /auth/verify-email": lambda: ("/auth/verify-email", {"token": self.link(Purpose.EMAIL)}),
            "PUT /users/me": lambda: ("/users/me", {"name": "Another Name"}),
            "DELETE /users/me/consents/{client_id}": lambda: (f"/users/me/consents/{self.consent()}", None),
            "DELETE /users/me/sessions/{session_id}": lambda: (f"/users/me/sessions/{self.session()}", None),
            "GET /users/{user_id}": lambda: (f"/users/{self.ids['owner']}", None),
            "PUT /users/{user_id}/roles": lambda: (f"/users/{self.ids['owner']}/roles", admin_role),
            "PUT /users/{user_id}/status": lambda: (f"/users/{self.ids['owner']}/status", {"status": "active"}),
            "POST /users/me/second-factors/totp/confirm": lambda: (
                "/users/me/second-factors/totp/confirm",
                {"otp": "000000"},
            ),
            "POST /users/me/second-factors/totp": lambda: ("/users/me/second-factors/totp", {}),
            "POST /users/me/second-factors/recovery-codes": lambda: (
                "/users/me/second-factors/recovery-codes",
                {},
            ),
            "POST /users/me/second-factors/passkeys/options": lambda: (
                "/users/me/second-factors/passkeys/options",
                {},
            ),
            "POST /users/me/second-factors/passkeys": lambda: (
                "/users/me/second-factors/passkeys",
                {"name": "x", "credential": {}},
            ),
            "PUT /users/me/second-factors/passkeys/{passkey_id}": lambda: (
                f"/users/me/second-factors/passkeys/{new_id()}",
                {"name": "x"},
            ),
            "DELETE /users/me/second-factors/passkeys/{passkey_id}": lambda: (
                f"/users/me/second-factors/passkeys/{new_id()}",
                None,
            ),
            "GET /users/{user_id}/sessions": lambda: (f"/users/{self.ids['owner']}/sessions", None),
            "DELETE /users/{user_id}/sessions": lambda: (f"/users/{self.api.register(name)['id']}/sessions", None),
            "DELETE /users/{user_id}/sessions/{session_id}": lambda: (
                f"/users/{self.ids['owner']}/sessions/{self.session()}",
                None,
            ),
            "DELETE /users/{user_id}/second-factors": lambda: (f"/users/{self.ids['owner']}/second-factors", None),
            "POST /roles": lambda: ("/roles", {"name": name}),
            "GET /roles/verify": lambda: (f"/roles/verify?role=user&role_id={new_id()}", None),
            "GET /roles/{role}": lambda: ("/roles/user", None),
            "PUT /roles/{role}/permissions": lambda: (f"/roles/{self.role()}/permissions", {"permissions": []}),
            "DELETE /roles/{role}": lambda: (f"/roles/{self.role()}", None),
            "POST /posts": lambda: ("/posts", {"title": "t", "body": "b"}),
            "GET /posts/{post_id}": lambda: (f"/posts/{self.post(public=not private)}", None),
            "DELETE /posts/{post_id}": lambda: (f"/posts/{self.post(public=not private)}", None),
            "GET /admin/explain": lambda: ("/admin/explain?user=owner&permission=logs:read", None),
            "POST /clients": lambda: ("/clients", {"client_name": name, "grant_types": ["client_credentials"]}),
            "GET /clients/{client_id}": lambda: (f"/clients/{self.client()}", None),
            "PUT /clients/{client_id}": lambda: (
                f"/clients/{self.client()}",
                {"client_name": name, "grant_types": ["client_credentials"]},
            ),
            "DELETE /clients/{client_id}": lambda: (f"/clients/{self.client()}", None),
            "POST /clients/{client_id}/secret": lambda: (f"/clients/{self.client()}/secret", None),
        }
        plain = route.removesuffix(" (private)")
        fill = fillers.get(plain)
        return fill() if fill else (plain.partition(" ")[2], None)


@pytest.fixture
def world(app, api, rooms, monkeypatch):
    rooms.keys.ensure("ES256")
    monkeypatch.setattr("tokenserver.tokens.key_lifecycle.SKEW", -2)
    admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    ids = {who: api.register(who)["id"] for who in PEOPLE[1:4] + PEOPLE[5:8]}
    body = {"name": "auditor", "permissions": ["logs:read", "stats:read"]}
    assert api.http.post("/roles", json=body, headers=admin).status_code == 201

    def give(who, *roles):
        answer = api.http.put(f"/users/{ids[who]}/roles", json={"roles": list(roles)}, headers=admin)
        assert answer.status_code == 200, answer.text

    give("moderator", "user", "moderator")
    give("custom", "auditor")
    give("disabled", "admin")
    give("demoted", "admin")
    tokens = {who: api.login(who) for who in ids}
    tokens["guest"] = {}
    tokens["admin"] = api.login("admin", ADMIN_PASSWORD)
    row, secret = rooms.clients.create(
        client_name="", grant_types=["client_credentials"], scope=["users:read", "logs:read", "posts:create"]
    )
    tokens["client"] = api.token((row.client_id, secret), grant_type="client_credentials").json
    give("demoted", "user")
    status = {"status": "disabled"}
    assert api.http.put(f"/users/{ids['disabled']}/status", json=status, headers=admin).status_code == 200
    return World(api, rooms, tokens, ids)


def test_every_cell(world):
    wrong = []
    for route, cells in matrix().items():
        for who, status in cells.items():
            path, body = world.request(route, who)
            token = world.tokens[who].get("access_token")
            answer = world.api.http.open(
                path, method=route.partition(" ")[0], json=body, headers=bearer(token) if token else {}
            )
            if answer.status_code != status or faults(answer):
                wrong.append(
                    f"{route} as {who}: {answer.status_code}, not {status}: {answer.text} {faults(answer)}"
                )
    assert not wrong, "\n".join(wrong)


def test_no_route_is_missing(app):
    written = {re.sub(r"\{[^}]*\}", "{}", route.partition(" (")[0]) for route in matrix()}
    routes = {
        f"{method} {re.sub(r'{[^}]*}', '{}', path_template(rule.rule))}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if not OPEN.match(rule.rule)
    }
    assert routes == written
