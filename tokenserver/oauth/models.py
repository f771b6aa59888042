from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base


class Consent(Base):
    """What a user let a client have: scopes with spaces between them, and claims asked for by name."""

    __tablename__ = "consents"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.client_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    scope: Mapped[str] = mapped_column(Text)
    claims: Mapped[list[str]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DeviceCode(Base):
    """A device that waits for a user (RFC 8628). `digest`: SHA-256 of the device code. `user_code` without dash.

    `status`: pending, approved, denied or used. Of the user who approved: `user_id` to `amr`. `interval`: seconds
    between polls, the last of which was at `polled_at`.
    """

    __tablename__ = "device_codes"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_code: Mapped[str] = mapped_column(String(16), unique=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.client_id", ondelete="CASCADE"), index=True)
    scope: Mapped[str] = mapped_column(Text)
    audience: Mapped[list[str]]
    status: Mapped[str] = mapped_column(String(10))
    interval: Mapped[int] = mapped_column(Integer)
    polled_at: Mapped[datetime | None]
    family_id: Mapped[UUID]
    session_id: Mapped[UUID | None]
    user_id: Mapped[UUID | None]
    authenticated_at: Mapped[datetime | None]
    amr: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UsedAssertion(Base):
    """A JWT that a client authenticated by: its `jti` works once (RFC 7523 section 3). `digest`: SHA-256 of client
    and `jti`."""

    __tablename__ = "used_assertions"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
