from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, new_id


class Session(Base):
    """One sign-in of a user. Its id is the `sid` of the tokens issued in it.

    `cookie_digest`: SHA-256 of the cookie of the browser that signed in, and `used_at` its last use; None for a
    sign-in without a browser. In a browser the user may prove who they are again: `authenticated_at` and `amr` are
    those of the last time; a family keeps its own.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_user_id_created_at", "user_id", "created_at"),
        Index("uq_sessions_cookie_digest", "cookie_digest", unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    client_id: Mapped[str] = mapped_column(String(255))
    authenticated_at: Mapped[datetime]
    amr: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))
    address: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    cookie_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    used_at: Mapped[datetime | None]


class RefreshFamily(Base):
    """One client's chain of refresh tokens in a session.

    `generation` and `rotated_at` are a checkpoint, well under a second behind Redis; no token of an earlier
    generation is accepted ever again, whatever Redis says. `authenticated_at`, `amr`: of the sign-in that it
    descends from; None in rows of the first version: the session's. `claims`: asked for by name (OIDC Core
    section 5.5).
    """

    __tablename__ = "refresh_families"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[UUID] = mapped_column(index=True)
    client_id: Mapped[str] = mapped_column(String(255), index=True)
    scope: Mapped[str | None] = mapped_column(Text)
    audience: Mapped[list[str]]
    binding: Mapped[str | None] = mapped_column(String(64))
    idle_lifetime: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    generation: Mapped[int] = mapped_column(Integer)
    rotated_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(String(40))
    authenticated_at: Mapped[datetime | None]
    amr: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class AuthorizationCode(Base):
    """A code and what was granted with it (RFC 6749 section 4.1.2). `digest`: SHA-256 of the code, which is stored
    nowhere. `family_id`: of the tokens that it leads to, the front channel's too, so that a replay ends them all.

    A spent one stays for a day, to recognise its replay.
    """

    __tablename__ = "authorization_codes"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    family_id: Mapped[UUID] = mapped_column(index=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[UUID]
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.client_id", ondelete="CASCADE"), index=True)
    redirect_uri: Mapped[str | None] = mapped_column(Text)
    scope: Mapped[str] = mapped_column(Text)
    audience: Mapped[list[str]]
    claims: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    nonce: Mapped[str | None] = mapped_column(Text)
    code_challenge: Mapped[str | None] = mapped_column(String(43))
    authenticated_at: Mapped[datetime]
    amr: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class SessionClient(Base):
    """A client that got tokens in a session: who is told of its end (OIDC Back-Channel Logout section 2.3)."""

    __tablename__ = "session_clients"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.client_id", ondelete="CASCADE"), primary_key=True, index=True
    )
    created_at: Mapped[datetime]


class LogoutDelivery(Base):
    """A client to be told of the end of a session; gone when it was told, or when nobody answered for long.

    `id`: the `jti` of the logout token. `attempts` so far; the next one at `due_at`.
    """

    __tablename__ = "logout_deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.client_id", ondelete="CASCADE"), index=True)
    session_id: Mapped[UUID]
    user_id: Mapped[UUID]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime]
