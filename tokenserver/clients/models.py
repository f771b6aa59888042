from datetime import datetime
from typing import Any

from sqlalchemy import JSON, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base


class ClientRow(Base):
    """`client_secret_digest`: SHA-256 of a random secret; slow hashing is for what people choose."""

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
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
