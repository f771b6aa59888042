"""What `/admin/logs` finds: newest first, by any of the filters together."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, select

from tokenserver.audit.models import AuditEvent
from tokenserver.storage.sql import Transaction

COLUMNS: Final = {
    "actor": AuditEvent.actor,
    "action": AuditEvent.event,
    "outcome": AuditEvent.outcome,
    "request_id": AuditEvent.request_id,
}


def find(tx: Transaction, query: Mapping[str, Any], before: tuple[datetime, UUID] | None) -> Sequence[AuditEvent]:
    """Up to `limit` + 1."""
    wanted: list[ColumnElement[bool]] = [column == query[name] for name, column in COLUMNS.items() if name in query]
    if "without" in query:
        wanted.append(AuditEvent.event != query["without"])
    path = query.get("path")
    if path is not None:
        if path.endswith("*"):
            wanted.append(AuditEvent.path.startswith(path[:-1], autoescape=True))
        else:
            wanted.append(AuditEvent.path == path)
    if "since" in query:
        wanted.append(AuditEvent.at >= query["since"])
    if "until" in query:
        wanted.append(AuditEvent.at < query["until"])
    if before is not None:
        at, last = before
        wanted.append((AuditEvent.at < at) | ((AuditEvent.at == at) & (AuditEvent.id < last)))
    newest = select(AuditEvent).where(*wanted).order_by(AuditEvent.at.desc(), AuditEvent.id.desc())
    return tx.scalars(newest.limit(query["limit"] + 1)).all()
