from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from tokenserver.storage.sql import Base, new_id


class Kind(StrEnum):
    """The first two carry a link that is worth something to whoever reads them; the others tell what happened."""

    EMAIL_VERIFICATION = "email_verification"
    PASSWORD_RESET = "password_reset"

    EMAIL_CHANGED = "email_changed"
    NEW_DEVICE = "new_device"
    PASSWORD_CHANGED = "password_changed"
    SECOND_FACTOR_ADDED = "second_factor_added"
    SECOND_FACTOR_REMOVED = "second_factor_removed"


class QueuedMail(Base):
    """A letter to be written and sent; gone when it was, or when nobody took it for long.

    Its text is not here, and no token: it is written when it is sent. `user_id`: whom it is about, or None where
    the letter finds out by `recipient`, who may be nobody's. `data`: what the letter needs to know, nothing secret.
    `attempts` so far; the next one at `due_at`.
    """

    __tablename__ = "mails"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(40))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    recipient: Mapped[str] = mapped_column(String(254))
    data: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[datetime] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(index=True)
