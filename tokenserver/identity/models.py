from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, new_id


class User(Base):
    """`username_key`, `email_key`, `name_key`: what is compared and searched (`identity.names`); the others are
    what is shown. `claims`: what else is known of the person (`identity.claims`)."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(String(254), unique=True)
    name: Mapped[str | None] = mapped_column(String(200))
    name_key: Mapped[str | None] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(10), default="active")
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    email_verified: Mapped[bool | None]
    phone_number_verified: Mapped[bool | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class KnownDevice(Base):
    """A browser that a user signed in from (`identity.known_devices`)."""

    __tablename__ = "known_devices"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    used_at: Mapped[datetime] = mapped_column(index=True)


class AccountLink(Base):
    """A link that was mailed to a user: works once, for one purpose, and a new one takes its place.

    `digest`: SHA-256 of its token, which is stored nowhere. `state`: digest of what it depends on; once that has
    changed it is worth nothing (`identity.links`).
    """

    __tablename__ = "account_links"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(20), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    state: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
