"""What the tests of rights do again and again."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import select

from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.redis_access import raw_redis
from tokenserver.access import guards, roles
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import FeedRow, state_key
from tokenserver.storage.sql import Base, Transaction

NOBODY = "7b0f6a52-9d5b-4a3e-8f0a-0d7f5f3b2c1d"


def make_role(rooms: Rooms, name: str, *permissions: str) -> UUID:
    def make(tx: Transaction) -> UUID:
        guards.lock(tx)
        return roles.create(tx, name=name, permissions=permissions, own=None).id

    return rooms.database.write(make)


def assign(rooms: Rooms, user_id: UUID | str, role: str, granted_by: str = "test") -> None:
    rooms.feed.change(
        lambda tx, change: rooms.rights.assign(tx, change, UUID(str(user_id)), role, granted_by=granted_by)
    )


def unassign(rooms: Rooms, user_id: UUID | str, role: str) -> None:
    rooms.feed.change(lambda tx, change: rooms.rights.unassign(tx, change, UUID(str(user_id)), role))


def user_id_of(rooms: Rooms, username: str = "admin") -> UUID:
    user = rooms.people.find_any(username)
    assert user is not None
    return user.id


def holding(api: Api, rooms: Rooms, username: str, *permissions: str) -> str:
    """An access token of a new user whose one role has these permissions and the user's name."""
    user = api.register(username)
    make_role(rooms, username, *permissions)
    assign(rooms, user["id"], username)
    unassign(rooms, user["id"], "user")
    return str(api.login(username)["access_token"])


def admin(api: Api) -> str:
    return str(api.login("admin", ADMIN_PASSWORD)["access_token"])


def covering(api: Api, scope: str, username: str = "admin", password: str = ADMIN_PASSWORD) -> str:
    """A token that covers less than its user holds."""
    form = {"grant_type": "password", "client_id": "first-party", "username": username, "password": password}
    return str(api.token(**form, scope=scope).json["access_token"])


def asked(api: Api, token: str, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """`match`: an ETag that is insisted on; the other options are the query."""
    match = options.pop("match", None)
    headers = bearer(token) | ({"If-Match": match} if match else {})
    if body is not None:
        headers["Content-Type"] = "application/json"
        options = {"query_string": options, "data": json.dumps(body, separators=(",", ":"))}
    else:
        options = {"query_string": options}
    return api.http.open(path, method=method, headers=headers, **options)


def events(rooms: Rooms, prefix: str, target: UUID | str | None = None) -> list[tuple[str, dict[str, Any]]]:
    query = select(AuditEvent).where(AuditEvent.event.startswith(prefix)).order_by(AuditEvent.at)
    if target is not None:
        query = query.where(AuditEvent.target == str(target))
    return rooms.database.read(lambda tx: [(row.event, row.details) for row in tx.scalars(query)])


def feed_entries(rooms: Rooms, kind: str) -> list[str]:
    query = select(FeedRow.subject).where(FeedRow.kind == kind)
    return sorted(rooms.database.read(lambda tx: list(tx.scalars(query))))


def dump(rooms: Rooms) -> dict[str, list[str]]:
    """Every row of every table, and how far the feed is."""

    def rows(tx: Transaction) -> dict[str, list[str]]:
        tables = Base.metadata.sorted_tables
        return {table.name: sorted(repr(row) for row in tx.execute(select(table))) for table in tables}

    states = [raw_redis(rooms.store).hgetall(state_key(bucket)) for bucket in rooms.store.buckets]
    return rooms.database.read(rows) | {"redis": [repr(states)]}
