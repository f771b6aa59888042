"""Effective rights of a user: the union over their roles, cached until the change feed says otherwise."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select

from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import ADMIN, BUILTIN_ROLES
from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import Conflict, FieldError, Invalid
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Change, Entry, Feed, Kind
from tokenserver.storage.sql import Transaction, utc_now

CACHED_USERS: Final = 10_000
# Who holds it decides who may do what: somebody must always hold it.
MANAGING: Final = "roles:assign"


@dataclass(frozen=True, slots=True)
class Held:
    """A user's role names, sorted, and the permissions that they add up to."""

    roles: tuple[str, ...]
    permissions: frozenset[str]


class Rights:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._held: Cache[UUID, Held] = Cache(CACHED_USERS)
        feed.subscribe(self._apply, lambda _entries: self._held.clear())

    def of(self, user_id: UUID) -> Held:
        """As of the last `Feed.sync`. Two queries at most, however many roles there are."""
        held = self._held.get(user_id)
        if held is None:
            ticket = self._held.ticket()
            held = self._feed.database.read(lambda tx: self.read(tx, user_id))
            self._held.put(user_id, held, ticket)
        return held

    @staticmethod
    def read(tx: Transaction, user_id: UUID) -> Held:
        of_user = RoleAssignment.user_id == user_id
        roles = tx.scalars(select(Role.name).join(RoleAssignment).where(of_user).order_by(Role.name)).all()
        permissions = tx.scalars(
            select(RolePermission.permission)
            .join(RoleAssignment, RoleAssignment.role_id == RolePermission.role_id)
            .where(of_user)
            .distinct()
        ).all()
        return Held(tuple(roles), frozenset(permissions))

    def _apply(self, entry: Entry) -> None:
        if entry.kind is Kind.ROLES_CHANGED:
            self._held.clear()
        elif entry.kind is Kind.USER_CHANGED:
            self._held.drop(UUID(entry.subject))

    # Changing

    def assign(self, tx: Transaction, change: Change, user_id: UUID, role_name: str, granted_by: str) -> None:
        """Give a role; nothing happens when the user has it. Raises Invalid `unknown_role`."""
        role = self._role(tx, role_name)
        if tx.get(RoleAssignment, (user_id, role.id)) is None:
            tx.add(RoleAssignment(user_id=user_id, role_id=role.id, granted_by=granted_by, granted_at=utc_now()))
            record(tx, Event.ROLE_ASSIGNED, target=user_id, role=role_name)
            change.note(Kind.USER_CHANGED, user_id)

    def unassign(self, tx: Transaction, change: Change, user_id: UUID, role_name: str) -> None:
        """Take a role. Raises Invalid `unknown_role`, Conflict `last_admin` when nobody could manage roles then."""
        role = self._role(tx, role_name)
        # Two of these at once, each leaving the other's target as the last one, would leave nobody.
        tx.execute(select(Role.id).where(Role.name == ADMIN).with_for_update())
        tx.execute(
            delete(RoleAssignment).where(RoleAssignment.user_id == user_id, RoleAssignment.role_id == role.id)
        )
        if self.managers(tx) == 0:
            raise Conflict("Nobody could manage roles any more.", code="last_admin")
        record(tx, Event.ROLE_UNASSIGNED, target=user_id, role=role_name)
        change.note(Kind.USER_CHANGED, user_id)

    @staticmethod
    def managers(tx: Transaction) -> int:
        """How many users hold the permission to assign roles."""
        return tx.execute(
            select(func.count(func.distinct(RoleAssignment.user_id)))
            .join(RolePermission, RolePermission.role_id == RoleAssignment.role_id)
            .where(RolePermission.permission == MANAGING)
        ).scalar_one()

    @staticmethod
    def _role(tx: Transaction, name: str) -> Role:
        role = tx.scalar(select(Role).where(Role.name == name))
        if role is None:
            raise Invalid([FieldError("roles", "There is no such role.")], code="unknown_role")
        return role


def create_builtin_roles(tx: Transaction) -> list[str]:
    """Those that are missing; their names. A later change of a built-in role's permissions is left alone."""
    known = set(tx.scalars(select(Role.name)))
    created = [name for name in BUILTIN_ROLES if name not in known]
    for name in created:
        description, permissions = BUILTIN_ROLES[name]
        rows = [RolePermission(permission=permission) for permission in sorted(permissions)]
        tx.add(
            Role(
                name=name,
                name_key=name,
                description=description,
                builtin=True,
                created_at=utc_now(),
                permissions=rows,
            )
        )
    return created
