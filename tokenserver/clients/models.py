from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, new_id


class ClientRow(Base):
    """`client_secret_digest`: SHA-256 of a random secret; slow hashing is for what people choose.

    `client_secret_sealed`: the secret itself, encrypted under a secret of the key ring, for clients that prove it
    by a MAC (`client_secret_jwt`). `optional`: the rest of its metadata, where it isn't the default.
    `registration_access_token_digest`: of a client that registered itself (RFC 7591).
    """

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    client_secret_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    client_name: Mapped[str] = mapped_column(String(255), default="")
    redirect_uris: Mapped[list[str]]
    grant_types: Mapped[list[str]]
    response_types: Mapped[list[str]]
    scope: Mapped[str] = mapped_column(Text, default="")
    token_endpoint_auth_method: Mapped[str] = mapped_column(String(40))
    jwks: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    audience: Mapped[list[str]]
    first_party: Mapped[bool] = mapped_column(default=False)
    client_secret_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    optional: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    registration_access_token_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class InitialAccessToken(Base):
    """Lets its bearer register clients (RFC 7591 section 3). `digest`: SHA-256 of the token. `uses_left` None: any
    number of times."""

    __tablename__ = "initial_access_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    note: Mapped[str] = mapped_column(String(255), default="")
    created_by: Mapped[str] = mapped_column(String(255))
    uses_left: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
