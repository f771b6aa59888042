"""A log with events of our own, the keys that sign its checkpoints, and the hands that tamper with it."""

import io
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from tokenserver.audit.chain import NAMES, Chains, append
from tokenserver.audit.checkpoint import TYP, Sealer
from tokenserver.audit.events import Event
from tokenserver.audit.export import ExportFile, write_export
from tokenserver.audit.log import Log
from tokenserver.audit.models import AuditCheckpoint, AuditEvent
from tokenserver.audit.record import record
from tokenserver.audit.retention import Retention
from tokenserver.audit.verification import Report, verify
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id, utc_now
from tokenserver.tokens.access_token import sign_jwt
from tokenserver.tokens.signing_key import SigningKey, generate_pem, load_pem


def new_key(alg: str = "EdDSA") -> SigningKey:
    return load_pem(alg, generate_pem(alg))


class Journal:
    """The log of one deployment. `key` signs, `trusted` is its JWK Set."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.database = rooms.database
        self.key = new_key()
        self.trusted = [self.key]
        self.sealer = self.other_sealer()
        self.retention = Retention(self.database, self.sealer)

    def other_sealer(self) -> Sealer:
        """As another process would have it."""
        return Sealer(self.database, self.sign, lambda: self.key.kid, self.rooms.settings.issuer)

    def sign(self, claims: Any) -> str:
        return sign_jwt(self.key.signer, TYP, claims)

    def rotate(self, *, keep: bool = True) -> None:
        self.key = new_key()
        self.trusted = [*(self.trusted if keep else []), self.key]

    # Writing

    def write(self, count: int = 1, **details: Any) -> None:
        """Events, each in a transaction of its own, in the chain of this process."""
        for number in range(count):
            self.database.write(
                lambda tx, number=number: record(tx, Event.USER_UPDATED, target="u1", number=number, **details)
            )

    def write_old(self, days: float, count: int = 1) -> None:
        """Events of that many days ago, as a stream that waited brings them."""
        values: dict[str, Any] = dict.fromkeys(NAMES) | {
            "event": "user:updated",
            "outcome": "success",
            "details": {},
        }
        for _ in range(count):
            at = utc_now() - timedelta(days=days)
            self.database.write(lambda tx, at=at: append(tx, values | {"id": new_id(), "at": at}))

    def in_another_process(self, work: Callable[[], object]) -> None:
        """With chains of its own."""
        ours = self.database.info[Chains]
        self.database.info[Chains] = Chains()
        work()
        self.database.info[Chains] = ours

    def write_in_another_process(self, count: int = 1) -> None:
        self.in_another_process(lambda: self.write(count))

    def write_unchained(self, at: datetime) -> None:
        event = AuditEvent(at=at, event="user:created", outcome="success", details={})
        self.database.write(lambda tx: tx.add(event))

    # Reading

    def events(self) -> list[AuditEvent]:
        """Those in chains, chain after chain."""
        query = select(AuditEvent).where(AuditEvent.chain.is_not(None))
        return self.database.read(
            lambda tx: list(tx.scalars(query.order_by(AuditEvent.chain, AuditEvent.position)))
        )

    def chain(self) -> list[AuditEvent]:
        """Of this process."""
        chains: Chains = self.database.info[Chains]
        (ours,) = chains._free
        return [event for event in self.events() if event.chain == ours.id]

    def checkpoints(self) -> list[AuditCheckpoint]:
        query = select(AuditCheckpoint).order_by(AuditCheckpoint.number)
        return self.database.read(lambda tx: list(tx.scalars(query)))

    # Tampering

    def change(self, event: AuditEvent, /, **values: Any) -> None:
        statement = update(AuditEvent).where(AuditEvent.id == event.id).values(**values)
        self.database.write(lambda tx: tx.execute(statement))

    def remove(self, *events: AuditEvent) -> None:
        statement = delete(AuditEvent).where(AuditEvent.id.in_([event.id for event in events]))
        self.database.write(lambda tx: tx.execute(statement))

    def insert(self, event: AuditEvent, /, **values: Any) -> None:
        """A copy of the event, with other values."""
        columns = {column.key: getattr(event, column.key) for column in AuditEvent.__table__.columns}
        self.database.write(lambda tx: tx.execute(insert(AuditEvent).values(columns | values)))

    def swap(self, one: AuditEvent, other: AuditEvent) -> None:
        self.change(one, position=-1)
        self.change(other, position=one.position)
        self.change(one, position=other.position)

    def change_checkpoint(self, number: int, **values: Any) -> None:
        statement = update(AuditCheckpoint).where(AuditCheckpoint.number == number).values(**values)
        self.database.write(lambda tx: tx.execute(statement))

    def remove_checkpoint(self, number: int) -> None:
        statement = delete(AuditCheckpoint).where(AuditCheckpoint.number == number)
        self.database.write(lambda tx: tx.execute(statement))

    # Proving

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.jwk for key in self.trusted]}

    def verify(self) -> Report:
        return self.database.read(lambda tx: verify(Log(tx), self.jwks, self.rooms.settings.issuer))

    def export(self) -> bytes:
        lines: list[str] = []
        self.database.read(lambda tx: write_export(Log(tx), self.rooms.settings.issuer, lines.append))
        return "".join(lines).encode()

    def verify_export(self, text: bytes) -> Report:
        """With the JWK Set alone."""
        export = ExportFile(io.BytesIO(text))
        return verify(export, self.jwks, export.issuer)

    def verify_both(self) -> Report:
        """The log, and the same log as it was exported, which must come to the same."""
        report = self.verify()
        assert self.verify_export(self.export()) == report
        return report


def found(report: Report) -> list[tuple[str, int | None]]:
    """Code and position, or number of the checkpoint, of each finding."""
    assert len(report.findings) == report.found
    return [(each.code, each.position or each.checkpoint) for each in report.findings]


@pytest.fixture
def journal(rooms: Rooms) -> Journal:
    """Empty."""
    for table in (AuditEvent, AuditCheckpoint):
        rooms.database.write(lambda tx, table=table: tx.execute(delete(table)))
    return Journal(rooms)


@pytest.fixture
def sealed(journal: Journal) -> Journal:
    """Ten events in the chain of this process, 6 of them when the checkpoint 1 was made, 8 at 2, all at 3; and two
    in the chain of another process."""
    journal.write_in_another_process(2)
    for count in (6, 2, 2):
        journal.write(count)
        journal.sealer.seal()
    assert [each.number for each in journal.checkpoints()] == [1, 2, 3]
    report = journal.verify_both()
    assert report.ok, report.findings
    assert report.unsealed == 0
    return journal
