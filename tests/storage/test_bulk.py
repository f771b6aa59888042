import json
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tokenserver.audit.models import AuditEvent, UsageCount
from tokenserver.storage.bulk import add_rows, insert_rows, raise_rows, time_text
from tokenserver.storage.sql import Base, new_id
from tokenserver.tokens.models import RefreshFamily

EVENTS, COUNTS, FAMILIES = (
    Base.metadata.tables[model.__tablename__] for model in (AuditEvent, UsageCount, RefreshFamily)
)
MOMENT = 1_795_000_000_000_001
DETAILS = {"list": ["ä", None, 1.5e-7], "%s": ":x", "\u0001\u2028": "'\"\\"}


def row(position: int, **values: Any) -> tuple[Any, ...]:
    texts = dict.fromkeys(column.name for column in EVENTS.columns) | {
        "id": new_id().hex,
        "at": time_text(MOMENT + position),
        "event": "bulk",
        "outcome": "success",
        "path": "/%s?:x'\"\\ü\u0001",
        "details": json.dumps(DETAILS),
        "chain": new_id().hex,
        "position": position,
        "hash": bytes(range(32)),
    }
    return tuple((texts | values).values())


def test_what_is_read_is_what_was_written(rooms):
    rows = [row(position) for position in range(300)]
    rooms.database.write(lambda tx: insert_rows(tx.connection(), EVENTS, rows))
    query = select(AuditEvent).where(AuditEvent.event == "bulk").order_by(AuditEvent.position)
    found = rooms.database.read(lambda tx: tx.scalars(query).all())
    written = dict(zip(EVENTS.columns.keys(), rows[299], strict=True))
    read = {name: getattr(found[299], name) for name in written}
    assert (read["id"].hex, read["chain"].hex) == (written["id"], written["chain"])
    assert read["at"] == datetime(2026, 11, 18, 11, 6, 40, 300, tzinfo=UTC)
    assert read["details"] == DETAILS
    for name in written.keys() - {"id", "chain", "at", "details"}:
        assert read[name] == written[name], name
    assert [each.position for each in found] == list(range(300))


def test_one_statement_whatever_their_number(app, rooms, queries):
    with queries(app) as counter:
        rooms.database.write(lambda tx: insert_rows(tx.connection(), EVENTS, [row(n) for n in range(1000)]))
    assert counter.count <= 2  # with BEGIN


@pytest.mark.parametrize("value", ["x" * 256, "\0"])
def test_a_text_that_does_not_fit_is_refused_with_all_others_or_kept_whole(rooms, value):
    rows = [row(1), row(2, actor=value)]
    takes_any_text = rooms.database.engine.dialect.name == "sqlite"
    with nullcontext() if takes_any_text else pytest.raises(DBAPIError):
        rooms.database.write(lambda tx: insert_rows(tx.connection(), EVENTS, rows))
    query = select(AuditEvent.actor).where(AuditEvent.event == "bulk").order_by(AuditEvent.position)
    found = rooms.database.read(lambda tx: tx.scalars(query).all())
    assert found == ([None, value] if takes_any_text else [])


def test_numbers_are_added_to_what_is_there(rooms):
    def rows(*counts: tuple[str, int]) -> list[tuple[Any, ...]]:
        return [(60, 0, "token", subject, "", count) for subject, count in counts]

    for batch in (rows(("a", 1), ("b", 2)), rows(("b", 10), ("c", 20))):
        rooms.database.write(lambda tx, batch=batch: add_rows(tx.connection(), COUNTS, "count", batch))
    found = rooms.database.read(lambda tx: tx.execute(select(UsageCount.subject, UsageCount.count)).tuples().all())
    assert dict(found) == {"a": 1, "b": 12, "c": 20}


def test_a_row_is_only_raised(api, rooms):
    api.signed_in()
    api.login()
    api.login()
    first, second, third = rooms.database.read(lambda tx: tx.scalars(select(RefreshFamily)).all())
    assert first.generation == 1
    rows = [
        (first.id.hex, 7, time_text(MOMENT)),
        (second.id.hex, 1, time_text(MOMENT)),
        (new_id().hex, 9, time_text(MOMENT)),
    ]
    names = ("id", "generation", "rotated_at")
    rooms.database.write(lambda tx: raise_rows(tx.connection(), FAMILIES, names, rows))
    found = rooms.database.read(
        lambda tx: {each.id: (each.generation, each.rotated_at) for each in tx.scalars(select(RefreshFamily))}
    )
    assert found == {
        first.id: (7, datetime(2026, 11, 18, 11, 6, 40, 1, tzinfo=UTC)),
        second.id: (1, second.rotated_at),
        third.id: (1, third.rotated_at),
    }


@pytest.mark.parametrize("moment", ["x", None, 1.5, 10**30, -(10**30)])
def test_what_no_time_is(moment):
    with pytest.raises((TypeError, ValueError, OverflowError, OSError)):
        time_text(moment)
