"""Retention: old events leave the log, and a signed stub per chain keeps the rest provable.

Only what can still be proven leaves: the beginning of a chain, as far as it is old, a checkpoint vouches for it and
it is as it was written. A chain that was tampered with stays for whoever looks into it.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select

from tokenserver.audit.chain import GENESIS, microseconds
from tokenserver.audit.checkpoint import Checkpoint, Head, Ledger, Sealer, Stub, digest, parse
from tokenserver.audit.log import fits, read_events
from tokenserver.audit.models import AuditCheckpoint, AuditEvent
from tokenserver.storage.sql import Base, Database, Transaction, utc_now

logger = logging.getLogger("tokenserver.audit")

# A chain of which all was pruned may go on in the process that writes it, which its stub must then connect. No
# process leaves a chain alone for so long and takes it up again.
IDLE: Final = timedelta(days=366)
# Seconds between two transactions, so that others get their turn to write: SQLite has no queue for them.
PAUSE: Final = 0.05


class Retention:
    """Any number of processes may do it at once, with the `sealer` of their own."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def prune(self, older_than: datetime, limit: int = 1000) -> int:
        """How many events were deleted. `limit`: of events, or of checkpoints, that one transaction deletes."""
        self._sealer.seal(everything=True)
        newest, chains = self._database.read(lambda tx: (_newest(tx), _chains(tx, older_than)))
        count = self._prune_unchained(older_than, limit)
        while chains:
            count += self._prune_chains(chains, older_than, limit)
            time.sleep(PAUSE)
        while self._sealer.add(lambda tx, ledger: _forget(tx, ledger, older_than, newest, limit)):
            time.sleep(PAUSE)
        return count

    def _prune_unchained(self, older_than: datetime, limit: int) -> int:
        old = select(AuditEvent.id).where(AuditEvent.chain.is_(None), AuditEvent.at < older_than).limit(limit)

        def work(tx: Transaction) -> int:
            ids = tx.scalars(old).all()
            _delete(tx, AuditEvent, AuditEvent.id.in_(ids))
            return len(ids)

        count = 0
        while deleted := self._database.write(work):
            count += deleted
            time.sleep(PAUSE)
        return count

    def _prune_chains(self, chains: list[UUID], older_than: datetime, limit: int) -> int:
        """One transaction; takes those that are done off `chains`."""
        batch = _Batch()

        def draft(tx: Transaction, ledger: Ledger) -> Mapping[str, Any] | None:
            nonlocal batch
            batch = _prune(tx, ledger, chains, microseconds(older_than), limit)
            return {"pruned": batch.stubs} if batch.stubs else None

        self._sealer.add(draft)
        del chains[len(chains) - batch.done :]
        return batch.events


@dataclass(slots=True)
class _Batch:
    """`done`: how many chains, from the end of the list, have nothing more to prune."""

    stubs: dict[str, Stub] = field(default_factory=dict)
    events: int = 0
    done: int = 0


def _delete(tx: Transaction, table: type[Base], *which: ColumnElement[bool]) -> None:
    tx.execute(delete(table).where(*which), execution_options={"synchronize_session": False})


def _newest(tx: Transaction) -> int:
    return tx.scalar(select(AuditCheckpoint.number).order_by(AuditCheckpoint.number.desc()).limit(1)) or 0


def _chains(tx: Transaction, older_than: datetime) -> list[UUID]:
    chain = func.coalesce(AuditEvent.chain, AuditEvent.chain)  # as in `checkpoint`: not by the index of the chains
    found: Sequence[UUID | None] = tx.scalars(select(chain).where(AuditEvent.at < older_than).distinct()).all()
    return [each for each in found if each is not None]


def _prune(tx: Transaction, ledger: Ledger, chains: Sequence[UUID], older_than: int, limit: int) -> _Batch:
    batch = _Batch()
    for chain in reversed(chains):
        room = limit - batch.events
        if not room:
            break
        begin = ledger.stub(str(chain)) or Stub(0, GENESIS.hex(), 0)
        end = _last_old(tx, chain, begin, ledger.sealed(str(chain)), older_than, room)
        if end.position > begin.position:
            batch.stubs[str(chain)] = end
            batch.events += end.position - begin.position
            gone = AuditEvent.position.between(begin.position + 1, end.position)
            _delete(tx, AuditEvent, AuditEvent.chain == chain, gone)
        if end.position - begin.position < room:
            batch.done += 1
    return batch


def _last_old(tx: Transaction, chain: UUID, begin: Stub, sealed: int, older_than: int, limit: int) -> Stub:
    """The last event of those that may leave together; `begin` if none may."""
    is_next = AuditEvent.position.between(begin.position + 1, min(sealed, begin.position + limit))
    for row in read_events(tx, AuditEvent.chain == chain, is_next):
        _, position, stored, values = row
        if not fits(bytes.fromhex(begin.hash), row):  # a gap is found by this too
            logger.warning("chain %s is kept: event %d is not as it was written", chain, begin.position + 1)
            break
        if values[1] >= older_than:
            break
        begin = Stub(position, stored.hex(), values[1])
    return begin


def _forget(
    tx: Transaction, ledger: Ledger, older_than: datetime, newest: int, limit: int
) -> Mapping[str, Any] | None:
    """Delete the oldest checkpoints, and carry over what only they say and is still needed."""
    oldest_first = select(AuditCheckpoint.number, AuditCheckpoint.at, AuditCheckpoint.jws)
    oldest_first = oldest_first.order_by(AuditCheckpoint.number)
    oldest = tx.execute(oldest_first.limit(1)).first()
    if oldest is None or oldest.at >= older_than:
        return None
    heads: dict[str, Head] = {}
    stubs: dict[str, Stub] = {}
    last = 0
    for (number, at, jws), following in pairwise(tx.execute(oldest_first.limit(limit + 1))):
        checkpoint = _proven(jws, following.jws)
        if at >= older_than or number >= newest or checkpoint is None:
            break
        heads |= checkpoint.heads
        stubs |= checkpoint.pruned
        last = number
    if not last:
        return None
    _delete(tx, AuditCheckpoint, AuditCheckpoint.number <= last)
    needed = microseconds(utc_now() - IDLE)
    return {
        "heads": {
            chain: head
            for chain, head in heads.items()
            if ledger.heads[chain][1] <= last and not _is_pruned(ledger, chain, head)
        },
        "pruned": {
            chain: stub
            for chain, stub in stubs.items()
            if ledger.stubs[chain][1] <= last and (stub.at >= needed or ledger.sealed(chain) > stub.position)
        },
        "pruned_checkpoints": last,
    }


def _proven(jws: str, following: str) -> Checkpoint | None:
    """None unless the next one was made after this one."""
    try:
        return parse(jws) if parse(following).previous == digest(jws) else None
    except ValueError:
        return None


def _is_pruned(ledger: Ledger, chain: str, head: Head) -> bool:
    stub = ledger.stub(chain)
    return stub is not None and stub.position >= head.position
