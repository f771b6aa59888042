from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from tokenserver.audit.models import AuditEvent
from tokenserver.storage.bulk import PAGE, insert_rows
from tokenserver.storage.sql import Base, new_id

TABLE = Base.metadata.tables[AuditEvent.__tablename__]


def row(position: int) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(TABLE.columns.keys())
    return values | {
        "id": new_id(),
        "at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=position),
        "event": "bulk",
        "outcome": "success",
        "path": "/%s?:x'\"\\ü",
        "details": {"list": ["ä", None, 1], "%s": ":x"},
        "chain": new_id(),
        "position": position,
        "hash": bytes(range(32)),
    }


def test_what_is_read_is_what_was_written(rooms):
    rows = [row(position) for position in range(2 * PAGE + 1)]
    rooms.database.write(lambda tx: insert_rows(tx.connection(), TABLE, rows))
    query = select(AuditEvent).where(AuditEvent.event == "bulk").order_by(AuditEvent.position)
    found = rooms.database.read(lambda tx: tx.scalars(query).all())
    assert [{name: getattr(each, name) for name in TABLE.columns.keys()} for each in found] == rows  # noqa: SIM118


def test_a_statement_for_each_page(app, rooms, queries):
    with queries(app) as counter:
        rooms.database.write(lambda tx: insert_rows(tx.connection(), TABLE, [row(n) for n in range(PAGE)]))
    assert counter.count <= 2  # with BEGIN
