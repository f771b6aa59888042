"""Effective rights of a user: the union over their roles, cached until the change feed says otherwise."""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CompoundSelect, bindparam, delete, func, insert, null, select, union_all

from tokenserver.access import guards
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import BUILTIN_ROLES
from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import FieldError, Invalid
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Change, Entry, Feed, Kind
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.web.holder import current_holder
from tokenserver.web.wire import MAX_FIELD_ERRORS

CACHED_USERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Held:
    """A user's role names, sorted, and the permissions that they add up to."""

    roles: tuple[str, ...]
    permissions: frozenset[str]


@cache  # composing it takes as long as asking
def _held() -> CompoundSelect[Any]:
    """The names of the roles that users hold, and the permissions that those add up to."""
    of_users = RoleAssignment.user_id.in_(bindparam("user_ids", expanding=True, type_=RoleAssignment.user_id.type))
    names = select(RoleAssignment.user_id, Role.name, null()).join(Role).where(of_users)
    permissions = (
        select(RoleAssignment.user_id, null(), RolePermission.permission)
        .join(RolePermission, RolePermission.role_id == RoleAssignment.role_id)
        .where(of_users)
        .distinct()
    )
    return union_all(names, permissions)


class Rights:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._held: Cache[UUID, Held] = Cache(CACHED_USERS)
        feed.subscribe(self._apply, lambda _entries: self._held.clear())

    def of(self, user_id: UUID) -> Held:
        """As of the last `Feed.sync`. One query at most, however many roles there are."""
        held = self._held.get(user_id)
        if held is None:
            ticket = self._held.ticket()
            held = self._feed.database.read(lambda tx: self.read(tx, user_id))
            self._held.put(user_id, held, ticket)
        return held

    @classmethod
    def read(cls, tx: Transaction, user_id: UUID) -> Held:
        return cls.read_all(tx, [user_id])[user_id]

    @staticmethod
    def read_all(tx: Transaction, user_ids: Collection[UUID]) -> dict[UUID, Held]:
        """Of a page of users: one query, however many users and roles there are."""
        roles: dict[UUID, list[str]] = {each: [] for each in user_ids}
        permissions: dict[UUID, set[str]] = {each: set() for each in user_ids}
        rows = tx.execute(_held(), {"user_ids": list(user_ids)})
        for user_id, role, permission in rows:
            if role is not None:
                roles[user_id].append(role)
            else:
                permissions[user_id].add(permission)
        return {each: Held(tuple(sorted(roles[each])), frozenset(permissions[each])) for each in user_ids}

    def _apply(self, entry: Entry) -> None:
        if entry.kind is Kind.ROLES_CHANGED:
            self._held.clear()
        elif entry.kind is Kind.USER_CHANGED:
            self._held.drop(UUID(entry.subject))

    # Changing, by the server and by operators

    def assign(self, tx: Transaction, change: Change, user_id: UUID, role_name: str, granted_by: str) -> None:
        """Give a role; nothing happens when the user has it. For a user who isn't new, behind `lock`.

        Raises Invalid `unknown_role`.
        """
        role = self._role(tx, role_name)
        if tx.get(RoleAssignment, (user_id, role.id)) is None:
            tx.add(RoleAssignment(user_id=user_id, role_id=role.id, granted_by=granted_by, granted_at=utc_now()))
            record(tx, Event.ROLE_ASSIGNED, target=user_id, role=role_name)
            change.note(Kind.USER_CHANGED, user_id)

    def unassign(self, tx: Transaction, change: Change, user_id: UUID, role_name: str) -> None:
        """Take a role; nothing happens when the user doesn't have it.

        Raises Invalid `unknown_role`, Conflict `last_admin` when nobody could manage roles then.
        """
        self.lock(tx)
        role = self._role(tx, role_name)
        row = tx.get(RoleAssignment, (user_id, role.id))
        if row is not None:
            tx.delete(row)
            tx.flush()
            self.require_managers(tx, {each.permission for each in role.permissions})
            record(tx, Event.ROLE_UNASSIGNED, target=user_id, role=role_name)
            change.note(Kind.USER_CHANGED, user_id)

    @staticmethod
    def managers(tx: Transaction) -> int:
        """How many users can manage roles in part or in full, disabled ones too: whether there are admins."""
        return tx.execute(
            select(func.count(func.distinct(RoleAssignment.user_id)))
            .join(RolePermission, RolePermission.role_id == RoleAssignment.role_id)
            .where(RolePermission.permission.in_(guards.MANAGING))
        ).scalar_one()

    @staticmethod
    def _role(tx: Transaction, name: str) -> Role:
        role = tx.scalar(select(Role).where(Role.name == name))
        if role is None:
            raise Invalid([FieldError("roles", "There is no such role.")], code="unknown_role")
        return role

    # Changing, by the caller of this request

    def replace(self, tx: Transaction, change: Change, user_id: UUID, names: Sequence[str]) -> None:
        """Let the user hold these roles and no other; behind `lock`. The number of reads is fixed.

        Raises Invalid `unknown_role`, Forbidden `exceeds_own_permissions`, Conflict `last_admin`.
        """
        mine = select(Role.name, Role.id).join(RoleAssignment).where(RoleAssignment.user_id == user_id)
        held = dict(tx.execute(mine).tuples().all())
        named = dict(tx.execute(select(Role.name, Role.id).where(Role.name.in_(set(names)))).tuples().all())
        _refuse_unknown(names, named)
        given, taken = named.keys() - held.keys(), held.keys() - named.keys()
        if not given and not taken:
            return

        of_role = RolePermission.role_id.in_([named[name] for name in given])
        gained = set(tx.scalars(select(RolePermission.permission).where(of_role).distinct()))
        # By what stays: the request bounds its number, and nothing bounds how many roles are taken.
        stays = [named[name] for name in named.keys() & held.keys()]
        goes = (RoleAssignment.user_id == user_id, RoleAssignment.role_id.not_in(stays))
        of_taken = (
            select(RolePermission.permission)
            .join(RoleAssignment, RoleAssignment.role_id == RolePermission.role_id)
            .where(*goes)
            .distinct()
        )
        lost = set(tx.scalars(of_taken))
        guards.require_own(gained | lost, guards.own_permissions(tx))

        tx.execute(delete(RoleAssignment).where(*goes).execution_options(synchronize_session=False))
        if given:
            granted = {"user_id": user_id, "granted_by": current_holder().subject, "granted_at": utc_now()}
            tx.execute(insert(RoleAssignment), [{"role_id": named[name], **granted} for name in given])
        self.require_managers(tx, lost)
        for name in sorted(taken):
            record(tx, Event.ROLE_UNASSIGNED, target=user_id, role=name)
        for name in sorted(given):
            record(tx, Event.ROLE_ASSIGNED, target=user_id, role=name)
        change.note(Kind.USER_CHANGED, user_id)

    # Guards, for who changes people

    @staticmethod
    def lock(tx: Transaction) -> None:
        guards.lock(tx)

    @staticmethod
    def require_managers(tx: Transaction, lost: AbstractSet[str]) -> None:
        guards.require_managers(tx, lost)

    @staticmethod
    def require_peer(tx: Transaction, permissions: AbstractSet[str]) -> None:
        """Who can't manage roles must not decide about who can. `permissions`: those of the user decided about.

        Raises Forbidden `exceeds_own_permissions`.
        """
        touched = permissions & guards.MANAGING
        if touched:
            guards.require_own(touched, guards.own_permissions(tx))


def _refuse_unknown(names: Sequence[str], known: Collection[str]) -> None:
    errors = [
        FieldError(f"roles.{i}", "There is no such role.") for i, name in enumerate(names) if name not in known
    ]
    if errors:
        raise Invalid(errors[:MAX_FIELD_ERRORS], code="unknown_role")


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
