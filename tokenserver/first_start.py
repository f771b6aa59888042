"""What a deployment needs before it can serve: schema, keys, roles, client, first admin. Safe to repeat."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from tokenserver.access.permissions import ADMIN
from tokenserver.access.rights import Rights, create_builtin_roles
from tokenserver.clients.registry import create_builtin
from tokenserver.errors import ConfigurationError, Conflict, Invalid, StoreUnavailable
from tokenserver.pages.admin.sign_in import CALLBACK
from tokenserver.rooms import Rooms
from tokenserver.storage import feed, revisions
from tokenserver.storage.sql import Transaction

MAX_TRIES: Final = 5


@dataclass(frozen=True)
class Admin:
    email: str
    password: str


@dataclass(frozen=True)
class Step:
    """`what` was done, in `seconds`. `admin`: the first one, if this step made them."""

    what: str
    seconds: float
    admin: Admin | None = None


def prepare(rooms: Rooms) -> Iterator[Step]:
    """Raises ConfigurationError, StoreUnavailable."""
    steps: tuple[Callable[[Rooms], tuple[str, Admin | None]], ...] = (
        _schema,
        _keys,
        _rows,
        _first_admin,
        _checkpoint,
    )
    for step in steps:
        started = time.perf_counter()
        what, admin = step(rooms)
        yield Step(what, time.perf_counter() - started, admin)


def _schema(rooms: Rooms) -> tuple[str, None]:
    found, (_, needed) = revisions.current(rooms.database), revisions.history()
    if found != needed:
        from tokenserver.storage import schema  # and Alembic, which few starts need

        found = schema.upgrade(rooms.database)
    if found == needed:
        return "database schema is current", None
    return f"database schema: {found or 'empty'} to {needed}", None


def _keys(rooms: Rooms) -> tuple[str, None]:
    rooms.ensure_keys()
    return f"signing key: {rooms.keys.signer(rooms.settings.signing_alg).kid}", None


def _rows(rooms: Rooms) -> tuple[str, None]:
    def create(tx: Transaction) -> str:
        feed.initialize(tx)
        created = create_builtin_roles(tx)
        clients = create_builtin(tx, rooms.settings.issuer + CALLBACK)
        return "built-in roles and clients" + (" created" if created or clients else " are there")

    for _ in range(MAX_TRIES):
        try:
            return rooms.database.write(create), None
        except IntegrityError:
            continue  # another node made the same rows at this moment; now they can be seen
    raise StoreUnavailable("sql", "other nodes keep making the first rows")


def _first_admin(rooms: Rooms) -> tuple[str, Admin | None]:
    if rooms.database.read(Rights.managers):
        return "an admin exists", None
    settings = rooms.settings
    email = settings.admin_email or "admin@localhost"
    password = settings.admin_password or secrets.token_urlsafe(15)
    try:
        user = rooms.people.prepare(username="admin", email=email, password=password, by_operator=True)
    except Invalid as error:
        faults = "; ".join(f"{fault.field}: {fault.message}" for fault in error.errors)
        raise ConfigurationError(f"TOKENSERVER_ADMIN_EMAIL, TOKENSERVER_ADMIN_PASSWORD: {faults}") from None

    def create(tx: Transaction, change: feed.Change) -> bool:
        feed.lock(tx)  # so that of many nodes one looks after the other
        if Rights.managers(tx):
            return False  # another process was faster
        rooms.people.add(tx, user)
        rooms.rights.assign(tx, change, user.id, ADMIN, granted_by="first start")
        return True

    try:
        created = rooms.feed.change(create)
    except Conflict as error:
        raise ConfigurationError(
            f"The first admin can't be created: {error.public} Grant the role by hand."
        ) from None
    if not created:
        return "an admin exists", None
    return f"first admin: {email}", Admin(email, password)


def _checkpoint(rooms: Rooms) -> tuple[str, None]:
    number = rooms.sealer.seal()
    return f"audit checkpoint: {number}" if number else "audit checkpoint is current", None
