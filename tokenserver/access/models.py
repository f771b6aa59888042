from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Uuid, column, table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tokenserver.storage.sql import Base, new_id


class Role(Base):
    __tablename__ = "roles"
    __table_args__ = (Index("uq_roles_name_key", "name_key", unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    # In lower case: two names that differ in case alone would be taken for each other.
    name_key: Mapped[str | None] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(String(255), default="")
    builtin: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]

    permissions: Mapped[list["RolePermission"]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class RolePermission(Base):
    __tablename__ = "role_permissions"

    role_id: Mapped[UUID] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True)
    permission: Mapped[str] = mapped_column(String(64), primary_key=True)


class RoleAssignment(Base):
    """`granted_by`: a user's id, or a word such as "registration" or "cli"."""

    __tablename__ = "role_assignments"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    role_id: Mapped[UUID] = mapped_column(ForeignKey("roles.id", ondelete="RESTRICT"), primary_key=True, index=True)
    granted_by: Mapped[str] = mapped_column(String(255))
    granted_at: Mapped[datetime]


# Of `identity`, which this room doesn't know: as much as is needed to tell who counts.
USERS: Final = table("users", column("id", Uuid()), column("username", String()), column("status", String()))
ACTIVE: Final = "active"
