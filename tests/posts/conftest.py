"""Who meets a post: each kind of caller, made over HTTP where HTTP can."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from tests.answers import granted
from tests.conftest import Api, bearer
from tokenserver.access.models import Role, RolePermission
from tokenserver.posts.models import Post
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction, new_id, utc_now


@dataclass
class Caller:
    """`token` None: a guest."""

    api: Api
    token: str | None = None
    id: str = ""

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = bearer(self.token) if self.token else {}
        return self.api.http.open(path, method=method, headers=headers, **options)

    def create(self, **body: Any) -> Any:
        return self.ask("POST", "/posts", json={"title": "A title", "body": "A body"} | body)

    def list(self, **query: Any) -> Any:
        return self.ask("GET", "/posts", query_string=query)

    def read(self, post_id: str) -> Any:
        return self.ask("GET", f"/posts/{post_id}")

    def delete(self, post_id: str) -> Any:
        return self.ask("DELETE", f"/posts/{post_id}")


class Callers:
    def __init__(self, api: Api, rooms: Rooms) -> None:
        self._api = api
        self._rooms = rooms
        self.guest = Caller(api)

    def member(self, username: str, role: str | None = None) -> Caller:
        """Signed in, with `role` beside that of everybody who registered."""
        user_id = self._api.register(username)["id"]
        if role is not None:
            self.assign(user_id, role)
        return Caller(self._api, self._api.login(username)["access_token"], user_id)

    def client(self, *scope: str) -> Caller:
        """A client's own token."""
        row, secret = self._rooms.clients.create(
            client_name="A job", grant_types=["client_credentials"], scope=scope
        )
        answer = self._api.token((row.client_id, str(secret)), grant_type="client_credentials")
        return Caller(self._api, granted(answer)["access_token"])

    def assign(self, user_id: str, role: str) -> None:
        rights = self._rooms.rights
        self._rooms.feed.change(
            lambda tx, change: rights.assign(tx, change, UUID(user_id), role, granted_by="test")
        )

    def unassign(self, user_id: str, role: str) -> None:
        rights = self._rooms.rights
        self._rooms.feed.change(lambda tx, change: rights.unassign(tx, change, UUID(user_id), role))

    def make_role(self, name: str, *permissions: str) -> None:
        def make(tx: Transaction, change: Change) -> None:
            rows = [RolePermission(permission=permission) for permission in permissions]
            tx.add(Role(name=name, name_key=name, created_at=utc_now(), permissions=rows))
            change.note(Kind.ROLES_CHANGED)

        self._rooms.feed.change(make)

    def disable(self, user_id: str) -> None:
        people = self._rooms.people
        self._rooms.feed.change(
            lambda tx, change: people.set_status(tx, change, UUID(user_id), "disabled", self._rooms.sessions)
        )


@pytest.fixture
def callers(api: Api, rooms: Rooms) -> Callers:
    return Callers(api, rooms)


@pytest.fixture
def stored(rooms: Rooms) -> Callable[..., list[Post]]:
    """Puts many posts straight into the database: (author's id, public, created_at) each."""

    def store(*posts: tuple[str, bool, datetime]) -> list[Post]:
        rows = [
            Post(id=new_id(), author_id=UUID(author), title="t", body="b", public=public, created_at=at)
            for author, public, at in posts
        ]
        rooms.database.write(lambda tx: tx.add_all(rows))
        return rows

    return store
