"""What a node needs before it can serve, part by part: `/readyz`, the metrics and `tokenserver doctor` ask here.

A part has a word that stays. One that rests on another which is missing is not asked, and not missing either.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from sqlalchemy.exc import DBAPIError

from tokenserver.errors import TokenserverError, Unavailable
from tokenserver.rooms import Rooms
from tokenserver.storage import revisions
from tokenserver.storage.feed import FIRST_STATE, ServerState
from tokenserver.web.health import Part


class Need(NamedTuple):
    """`check` raises a TokenserverError when the part is missing. `sentence`: what that means."""

    sentence: str
    check: Callable[[Rooms], object]
    rests_on: tuple[str, ...] = ()


def parts(rooms: Rooms) -> list[Part]:
    found: dict[str, Part] = {}
    for name, need in NEEDS.items():
        if any(found[other].is_missing for other in need.rests_on):
            found[name] = Part(name, is_missing=False, detail="not asked: it rests on what is missing")
            continue
        try:
            need.check(rooms)
        except TokenserverError as error:
            found[name] = Part(name, is_missing=True, detail=f"{need.sentence} ({error.private or error.public})")
        else:
            found[name] = Part(name, is_missing=False, detail="as needed")
    return list(found.values())


def _sql(rooms: Rooms) -> None:
    rooms.database.read(lambda tx: tx.connection().exec_driver_sql("SELECT 1"))


def _schema(rooms: Rooms) -> None:
    try:
        found = revisions.found(rooms.database)
    except DBAPIError:
        found = None
    known, newest = revisions.history()
    # A later version's: it only expands what this one uses.
    if found is None or (found in known and found != newest):
        raise Unavailable(private=f"revision {found or 'none'}, this version needs {newest}")


def _initialised(rooms: Rooms) -> None:
    if rooms.database.read(lambda tx: tx.get(ServerState, FIRST_STATE)) is None:
        raise Unavailable(private="the row of server_state is missing")


def _redis(rooms: Rooms) -> None:
    rooms.store.ask_unverified(rooms.store.any_bucket(), lambda client: client.time())


NEEDS: Final[Mapping[str, Need]] = {
    "clock": Need("The clock of this node is wrong.", lambda rooms: rooms.clock.require()),
    "sql": Need("The database doesn't answer.", _sql),
    "schema": Need("The schema is older than this version: run `tokenserver db upgrade`.", _schema, ("sql",)),
    "initialised": Need("The database is empty: run `tokenserver init`.", _initialised, ("sql", "schema")),
    "redis": Need("Redis doesn't answer.", _redis),
    "marker": Need(
        "Redis isn't compared with the database yet, so nobody knows what is revoked.",
        lambda rooms: rooms.feed.sync(),
        # What is missing already may not write the mirror again.
        ("clock", "redis", "initialised"),
    ),
    "keys": Need("The ring has no key to sign with.", lambda rooms: rooms.keys.signer(rooms.settings.signing_alg)),
}
