"""Hash chains over events: each event's hash covers its own content and the hash before it.

A chain has one writer at a time, so that writers don't wait for each other: a transaction takes one that is free in
its process, appends, and gives it back when it ends. A process starts chains of its own and never goes on with
those of another, whose end it can't know.
"""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Table

from tokenserver.audit.models import AuditEvent
from tokenserver.storage.bulk import insert_rows, time_text
from tokenserver.storage.sql import Base, Transaction, before_commit, new_id, when_ended

GENESIS: Final = bytes(32)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TABLE: Final[Table] = Base.metadata.tables[AuditEvent.__tablename__]
ROWS: Final = "audit events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What an event's hash covers, in this order. `at`: microseconds since 1970."""

    id: UUID
    at: int
    event: str
    outcome: str
    reason: str | None
    actor: str | None
    client_id: str | None
    address: str | None
    request_id: str | None
    method: str | None
    path: str | None
    target: str | None
    details: dict[str, Any]


NAMES: Final = tuple(field.name for field in fields(Entry))


# Of these orjson, which is several times as fast, writes what `json` writes. Fractions each spells in its own way.
PLAIN: Final = frozenset({str, int, bool, type(None)})
TEXTS: Final = frozenset({str, type(None)})
_encode: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode


def details_text(details: Any) -> str:
    """As compact JSON with sorted members."""
    if type(details) is dict and PLAIN.issuperset(map(type, details.values())):
        try:
            return orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            pass  # a number past 64 bits, a lone surrogate
    return _encode(details)


def link_hash(before: bytes, chain: UUID | str, position: int, values: tuple[Any, ...]) -> bytes:
    """SHA-256 over the hash before and, as compact JSON in UTF-8 with sorted members, the list
    [chain, position, *values in the order of `Entry`]; ids as text. `details` holds no fractions, whose spelling a
    database may change."""
    return _hash(before, chain, position, values[:-1], details_text(values[-1]))


def _hash(before: bytes, chain: UUID | str, position: int, values: tuple[Any, ...], details: str) -> bytes:
    if TEXTS.issuperset(map(type, values[2:])):
        try:
            return sha256(before + orjson.dumps([chain, position, *values, orjson.Fragment(details)])).digest()
        except TypeError:
            pass  # as above
    texts = ",".join(["null" if text is None else _quoted(text) for text in values[2:]])
    covered = f'["{chain}",{position},"{values[0]}",{values[1]},{texts},{details}]'
    return sha256(before + covered.encode()).digest()


def microseconds(at: datetime) -> int:
    passed = at - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


@dataclass(slots=True)
class _Chain:
    id: UUID
    position: int = 0
    head: bytes = GENESIS


class Writer:
    """A chain in the hands of one transaction."""

    def __init__(self, chain: _Chain) -> None:
        self._chain = chain
        self._name = str(chain.id)
        self._position = chain.position
        self._head = chain.head

    @property
    def chain(self) -> UUID:
        return self._chain.id

    def link(self, values: tuple[Any, ...], details: str) -> tuple[int, bytes]:
        """The position and hash of the event that comes next. `values`: those of `Entry` in its order, up to
        `details`, of which it is `details_text`. Raises TypeError, ValueError for what is no text."""
        self._head = _hash(self._head, self._name, self._position + 1, values, details)
        self._position += 1
        return self._position, self._head

    def advance(self) -> None:
        """What was appended is committed."""
        self._chain.position, self._chain.head = self._position, self._head


class Chains:
    """The chains of this process; hung on every transaction as `tx.info[Chains]`."""

    def __init__(self) -> None:
        self._free: list[_Chain] = []  # its append and pop are atomic

    def writer(self, tx: Transaction) -> Writer:
        """The chain of this transaction, for as long as it lasts."""
        writer: Writer | None = tx.info.get(Writer)
        if writer is None:
            chain = self._take()
            writer = tx.info[Writer] = Writer(chain)
            self._follow(tx, chain, writer)
        return writer

    def _take(self) -> _Chain:
        try:
            return self._free.pop()
        except IndexError:
            return _Chain(new_id())

    def _follow(self, tx: Transaction, chain: _Chain, writer: Writer) -> None:
        def ended(committed: bool | None) -> None:  # noqa: FBT001 - three outcomes
            if committed:
                writer.advance()
            # A commit that failed may have succeeded: nobody knows where the chain ends, so it ends here.
            if committed is not None:
                self._free.append(chain)

        when_ended(tx, ended)


def append(tx: Transaction, values: dict[str, Any]) -> None:
    """Add one event to the log, in the caller's transaction: at its end, with all the others, in one statement.
    `values`: all columns but the chain's."""
    chains: Chains = tx.info[Chains]
    writer = chains.writer(tx)
    event_id, at, *texts, details = (values[name] for name in NAMES)
    covered, moment = details_text(details), microseconds(at)
    position, digest = writer.link((event_id, moment, *texts), covered)
    rows = tx.info.get(ROWS)
    if rows is None:
        rows = tx.info[ROWS] = []
        before_commit(tx, lambda: insert_rows(tx.connection(), TABLE, rows))
    rows.append((event_id.hex, time_text(moment), *texts, covered, writer.chain.hex, position, digest))
