"""The log as it stands in SQL, read for proof: the stored values themselves, streamed, in one snapshot."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, cast, select, type_coerce
from sqlalchemy.types import NullType

from tokenserver.audit.chain import EPOCH, NAMES, link_hash, microseconds
from tokenserver.audit.models import AuditCheckpoint, AuditEvent
from tokenserver.storage.sql import Transaction

# Chain and id as text, position, hash, and the values that the hash covers: those of `chain.Entry` in its order.
# No values: the row holds something that no event of ours has.
Row = tuple[Any, Any, Any, tuple[Any, ...]]

BATCH: Final = 2000
UNREADABLE: Final = (ValueError, TypeError, IndexError, RecursionError)  # a value that no event of ours has
_EPOCH: Final = EPOCH.replace(tzinfo=None)
# The types of the columns would raise an error at a value that was tampered with, which is to be found, and cost
# more than the hash.
_TEXTS: Final = frozenset({"chain", "id", "details"})
_STORED: Final = [getattr(AuditEvent, name) for name in ("chain", "position", "hash", *NAMES)]
_ON_SQLITE: Final = [type_coerce(column, NullType()) for column in _STORED]
_ON_POSTGRESQL: Final = [
    cast(column, Text) if column.key in _TEXTS else type_coerce(column, NullType()) for column in _STORED
]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member name")
    return members


# A member that stands twice is read differently by different readers.
decode_json: Final = json.JSONDecoder(object_pairs_hook=_unique).decode


class Log:
    """To be made first in a transaction, whose snapshot it reads."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        # SQLite reads a snapshot anyway, CockroachDB is serializable.
        if tx.connection().dialect.name == "postgresql":
            tx.connection().exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        query = select(AuditCheckpoint.number, AuditCheckpoint.jws).order_by(AuditCheckpoint.number)
        for number, jws in self._tx.execute(query, execution_options={"yield_per": BATCH}):
            yield number, str(jws)

    def events(self) -> Iterator[Row]:
        """Chain after chain, by position."""
        return read_events(self._tx, AuditEvent.chain.is_not(None))

    def unchained(self) -> Iterator[Row]:
        """From before there were chains, by time."""
        return read_events(self._tx, AuditEvent.chain.is_(None), order=BY_TIME)

    def faults(self) -> Iterator[str]:
        return iter(())


BY_CHAIN: Final = (AuditEvent.chain, AuditEvent.position)
BY_TIME: Final = (AuditEvent.at, AuditEvent.id)


def read_events(
    tx: Transaction, *wanted: ColumnElement[bool], order: tuple[Any, ...] = BY_CHAIN, limit: int | None = None
) -> Iterator[Row]:
    on_sqlite = tx.connection().dialect.name == "sqlite"
    columns, plain = (_ON_SQLITE, _from_sqlite) if on_sqlite else (_ON_POSTGRESQL, _from_postgresql)
    query = select(*columns).where(*wanted).order_by(*order).limit(limit)
    result = tx.execute(query, execution_options={"yield_per": BATCH})
    try:
        for rows in result.partitions():
            for row in rows:
                yield plain(row)
    finally:
        result.close()


def fits(before: bytes, row: Row) -> bool:
    """Whether the row is the event that was written after the one with the hash `before`."""
    chain, position, stored, values = row
    try:
        return bool(link_hash(before, chain, position, values) == stored)
    except UNREADABLE:
        return False


def _from_sqlite(row: Any) -> Row:
    chain, position, digest, event_id, at, *values, details = row
    chain = _dashed(chain)
    try:
        moment = datetime.fromisoformat(at) - _EPOCH
        at = (moment.days * 86_400 + moment.seconds) * 1_000_000 + moment.microseconds
        return chain, position, digest, (_dashed(event_id), at, *values, decode_json(details))
    except UNREADABLE:
        return chain, position, digest, ()


def _dashed(text: Any) -> str | None:
    if text is None:
        return None
    text = str(text)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _from_postgresql(row: Any) -> Row:
    chain, position, digest, event_id, at, *values, details = row
    digest = digest and bytes(digest)
    try:
        return chain, position, digest, (event_id, microseconds(at), *values, decode_json(details))
    except UNREADABLE:
        return chain, position, digest, ()
