"""What `doctor` looks at in SQL and in Redis."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

from tokenserver.cli.command import find_schema, furnished, is_later
from tokenserver.cli.finding import INIT, Finding, Status
from tokenserver.config import Settings
from tokenserver.storage import clock

if TYPE_CHECKING:
    from tokenserver.rooms import Rooms


def database(settings: Settings) -> Iterator[Finding]:
    from tokenserver.storage import schema

    with furnished(settings) as rooms:
        found, needed = find_schema(rooms), schema.head()
        if found is None:
            yield Finding("schema", "fault", "the database is not initialised", INIT)
            return
        yield Finding("database", "ok", "answers")
        if is_later(found):
            detail = f"revision {found} was made by a later version than this one"
            yield Finding("schema", "warning", detail, "nothing, while versions are being exchanged")
        elif found != needed:
            detail = f"revision {found}, and this version needs {needed}"
            yield Finding("schema", "fault", detail, "run `tokenserver db upgrade`")
            return
        else:
            yield Finding("schema", "ok", f"revision {found}")
        yield from _rows(rooms)
        if rooms.database.engine.dialect.name != "sqlite":
            yield _clock("database", lambda: clock.sql_time(rooms.database))


def _rows(rooms: "Rooms") -> Iterator[Finding]:
    from sqlalchemy import select

    from tokenserver.access.guards import can_manage
    from tokenserver.access.models import Role
    from tokenserver.access.permissions import BUILTIN_ROLES
    from tokenserver.access.rights import Rights
    from tokenserver.storage.feed import ServerState

    state = rooms.database.read(lambda tx: tx.get(ServerState, 1))
    roles = rooms.database.read(lambda tx: set(tx.scalars(select(Role.name))))
    missing = sorted(BUILTIN_ROLES.keys() - roles)
    if state is None or missing:
        what = "the row of server_state" if state is None else "the roles " + ", ".join(missing)
        yield Finding(
            "initialised", "fault", f"{what} is missing" if state is None else f"{what} are missing", INIT
        )
    else:
        yield Finding("initialised", "ok", "server state and built-in roles are there")
    if rooms.database.read(can_manage):
        yield Finding("admin", "ok", "somebody can manage roles")
    elif rooms.database.read(Rights.managers):
        what = "who can manage roles is disabled, or lacks roles:assign or roles:write"
        yield Finding(
            "admin", "fault", what, "run `tokenserver user enable USER` or `tokenserver role set-permissions`"
        )
    else:
        yield Finding("admin", "fault", "nobody can manage roles", f"{INIT}: it makes an admin")


def redis(settings: Settings) -> Iterator[Finding]:
    from tokenserver.storage import redis_rules
    from tokenserver.storage.embedded import attach_or_start

    if settings.embedded_redis and not settings.data_dir.is_dir():
        return  # there is nothing to start it on, as "data folder" says
    present: AbstractContextManager[None] = attach_or_start(settings) if settings.embedded_redis else nullcontext()
    with present, furnished(settings) as rooms:
        store = rooms.store
        for name, fault in (
            ("redis version", redis_rules.version_fault(store)),
            ("redis eviction", redis_rules.eviction_fault(store)),
            ("redis permissions", redis_rules.permission_fault(store)),
        ):
            yield Finding(name, "fault", *fault) if fault else Finding(name, "ok", "as needed")
        if all(info.get("aof_enabled") for info in store.info("persistence")):
            yield Finding("redis persistence", "ok", "append-only file is on")
        else:
            yield Finding(
                "redis persistence",
                "warning",
                "the append-only file is off: a restart of Redis loses the newest refresh tokens",
                "set `appendonly yes` in the configuration of Redis",
            )
        yield _clock("redis", lambda: clock.redis_time(store))
        if find_schema(rooms) is None:
            return
        if all(_is_known(rooms, bucket) for bucket in store.buckets):
            yield Finding("redis epoch", "ok", "Redis is the one that the database knows")
        else:
            yield Finding(
                "redis epoch",
                "warning",
                "Redis was emptied or replaced, or belongs to another deployment",
                "the server writes it again from the database at its next request; if this stays, see that no "
                "other deployment uses the same Redis database",
            )


def _is_known(rooms: "Rooms", bucket: int) -> bool:
    """Whether the database speaks of what stands in Redis, or hasn't met it yet."""
    from tokenserver.storage.feed import FIRST_STATE, ServerState, state_key

    state = rooms.database.read(lambda tx: tx.get(ServerState, FIRST_STATE + bucket))
    _, epoch = rooms.store.ask_unverified(
        bucket, lambda client: cast("str | None", client.hget(state_key(bucket), "epoch"))
    )
    return state is None or (epoch or "") == state.epoch


def _clock(name: str, ask: Callable[[], float]) -> Finding:
    skew = clock.skew(ask)
    if abs(skew) <= clock.WARNING:
        return Finding(f"clock of {name}", "ok", "agrees with this machine")
    status: Status = "fault" if abs(skew) > clock.LIMIT else "warning"
    detail = f"this machine is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    return Finding(f"clock of {name}", status, detail, "let both machines set their clocks by NTP")
