"""Who asks for clients: people with the permissions that a test gives them, and what they send."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from tests.answers import granted
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.listeners import listen
from tokenserver.access.models import Role, RolePermission
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction, utc_now

__all__ = ["listen"]


@dataclass
class Caller:
    """`token` None: a guest."""

    api: Api
    token: str | None = None

    def ask(self, method: str, path: str = "", **options: Any) -> Any:
        headers = options.pop("headers", {}) | (bearer(self.token) if self.token else {})
        return self.api.http.open(f"/clients{path}", method=method, headers=headers, **options)

    def post(self, **body: Any) -> Any:
        return self.ask("POST", json=body)

    def get(self, client_id: str) -> Any:
        return self.ask("GET", f"/{client_id}")

    def list(self, **query: Any) -> Any:
        return self.ask("GET", query_string=query)

    def put(self, client_id: str, match: str | None = None, /, **body: Any) -> Any:
        return self.ask("PUT", f"/{client_id}", json=body, headers={"If-Match": match} if match else {})

    def delete(self, client_id: str) -> Any:
        return self.ask("DELETE", f"/{client_id}")

    def rotate(self, client_id: str) -> Any:
        return self.ask("POST", f"/{client_id}/secret")


@pytest.fixture
def guest(api: Api) -> Caller:
    return Caller(api)


@pytest.fixture
def admin(api: Api) -> Caller:
    return Caller(api, api.login("admin", ADMIN_PASSWORD)["access_token"])


@pytest.fixture
def holder_of(api: Api, rooms: Rooms) -> Callable[..., Caller]:
    """Somebody new with these permissions, and posts:create as everybody has."""

    def make(*permissions: str) -> Caller:
        name = f"u{len(made)}"
        made.append(name)
        user_id = UUID(api.register(name)["id"])

        def give(tx: Transaction, change: Change) -> None:
            rows = [RolePermission(permission=permission) for permission in permissions]
            tx.add(Role(name=name, name_key=name, created_at=utc_now(), permissions=rows))
            tx.flush()
            rooms.rights.assign(tx, change, user_id, name, granted_by="test")
            change.note(Kind.ROLES_CHANGED)

        rooms.feed.change(give)
        return Caller(api, api.login(name)["access_token"])

    made: list[str] = []
    return make


@pytest.fixture
def recorded_in() -> Callable[[Rooms, str], list[AuditEvent]]:
    """The events about one client, in their order."""

    def read(rooms: Rooms, client_id: str) -> list[AuditEvent]:
        query = select(AuditEvent).where(AuditEvent.target == client_id, AuditEvent.event.startswith("client:"))
        return list(rooms.database.read(lambda tx: tx.scalars(query.order_by(AuditEvent.at)).all()))

    return read


@pytest.fixture
def recorded(
    rooms: Rooms, recorded_in: Callable[[Rooms, str], list[AuditEvent]]
) -> Callable[[str], list[AuditEvent]]:
    return lambda client_id: recorded_in(rooms, client_id)


@pytest.fixture
def app_tokens(api: Api, rooms: Rooms) -> Callable[[str], dict[str, Any]]:
    """Signs a user in at the public client "app"."""

    def sign_in(username: str) -> dict[str, Any]:
        form = {"username": username, "password": "correct horse 7 battery", "client_id": "app"}
        return granted(api.token(None, grant_type="password", **form))

    rooms.clients.create(
        client_id="app",
        client_name="An app",
        grant_types=["password", "refresh_token"],
        scope=["posts:create"],
        token_endpoint_auth_method="none",
    )
    return sign_in
