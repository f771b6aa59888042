from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, new_id


class AuditEvent(Base):
    """One link of a chain (`audit.chain`). Rows are inserted and, when they are old enough, deleted; never updated.

    `chain`, `position`, `hash` are None in rows from before there were chains.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("uq_audit_events_chain_position", "chain", "position", unique=True),
        Index("ix_audit_events_at_id", "at", "id"),
        Index("ix_audit_events_event_at", "event", "at"),
        Index("ix_audit_events_actor_at", "actor", "at"),
        Index("ix_audit_events_request_id", "request_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(40))
    outcome: Mapped[str] = mapped_column(String(10))
    reason: Mapped[str | None] = mapped_column(String(60))
    actor: Mapped[str | None] = mapped_column(String(255))
    client_id: Mapped[str | None] = mapped_column(String(255))
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    method: Mapped[str | None] = mapped_column(String(10))
    path: Mapped[str | None] = mapped_column(String(255))
    target: Mapped[str | None] = mapped_column(String(255))
    details: Mapped[dict[str, Any]]
    chain: Mapped[UUID | None]
    position: Mapped[int | None] = mapped_column(BigInteger)
    hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))


class AuditCheckpoint(Base):
    """A signed statement over the heads of the chains (`audit.checkpoint`). `jws`: RFC 7515 compact."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    jws: Mapped[str] = mapped_column(Text)


class StreamPosition(Base):
    """How far a Redis stream was carried into SQL: what is at or before it was, and is not carried twice."""

    __tablename__ = "stream_positions"

    stream: Mapped[str] = mapped_column(String(40), primary_key=True)
    position: Mapped[str] = mapped_column(String(64))


class UsageCount(Base):
    """How often something happened in the minute or hour (`seconds`: 60, 3600) that began at `bucket` (unix s)."""

    __tablename__ = "usage_counts"

    seconds: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bucket: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    measure: Mapped[str] = mapped_column(String(20), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    qualifier: Mapped[str] = mapped_column(String(255), primary_key=True, default="")
    count: Mapped[int] = mapped_column(BigInteger)
