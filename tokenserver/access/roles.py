"""The roles: named sets of permissions, made, changed and deleted.

What changes one takes `own`, the permissions that the caller may hand on (`guards.own_permissions`), or None for an
operator, and stands behind `guards.lock`.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from tokenserver.access import guards
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import Conflict, FieldError, Invalid, NotFound
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.web.wire import MAX_FIELD_ERRORS

T = TypeVar("T")

# Plain enough for URLs, tokens and log lines, and no two that look alike but for their case.
NAME: Final = "[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
CANONICAL_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
LINE_BREAKING: Final = frozenset({"Cc", "Zl", "Zp"})
# What stands in paths where a name could.
RESERVED: Final = "verify"

# Finding


def get(tx: Transaction, role: str) -> Role:
    """By id, or by name."""
    if CANONICAL_UUID.fullmatch(role):
        return _found(tx.get(Role, UUID(role)))
    return _found(tx.scalar(select(Role).where(Role.name == role)) if _may_be_name(role) else None)


def id_of(tx: Transaction, name: str) -> UUID:
    """By its name exactly as it is."""
    return _found(tx.scalar(select(Role.id).where(Role.name == name)) if _may_be_name(name) else None)


def _may_be_name(text: str) -> bool:
    """What can't be a name is not asked of the database, which may refuse its characters."""
    return re.fullmatch(NAME, text) is not None


def _found(it: T | None) -> T:
    if it is None:
        raise NotFound("There is no such role.", code="role_not_found")
    return it


def page(tx: Transaction, *, text: str = "", limit: int | None = None, after: str | None = None) -> Sequence[Role]:
    """By name. `text`: a part of it, in any case."""
    query = select(Role).order_by(Role.name).limit(limit)
    if text:
        query = query.where(Role.name.icontains(text, autoescape=True))
    if after is not None:
        query = query.where(Role.name > after)
    return tx.scalars(query).all()


def bodies(tx: Transaction, roles: Sequence[Role]) -> list[dict[str, Any]]:
    """As they are answered and printed; one query. `user_count`: who holds it, disabled users too."""
    held = (
        select(RoleAssignment.role_id, func.count())
        .where(RoleAssignment.role_id.in_([role.id for role in roles]))
        .group_by(RoleAssignment.role_id)
    )
    users = dict(tx.execute(held).tuples().all())
    return [
        {
            "id": role.id,
            "name": role.name,
            "description": role.description,
            "permissions": sorted(_permissions(role)),
            "builtin": role.builtin,
            "user_count": users.get(role.id, 0),
        }
        for role in roles
    ]


def body(tx: Transaction, role: Role) -> dict[str, Any]:
    return bodies(tx, [role])[0]


# Changing


def create(
    tx: Transaction,
    *,
    name: str,
    description: str = "",
    permissions: Collection[str] = (),
    own: AbstractSet[str] | None,
) -> Role:
    """Raises Invalid (`unknown_permission`), Forbidden `exceeds_own_permissions`, Conflict `role_exists`."""
    errors = []
    if not re.fullmatch(NAME, name) or _is_uuid(name) or name.lower() == RESERVED:
        message = (
            f"1 to 64 letters, digits and . _ : -, starting with a letter or digit; no UUID, not `{RESERVED}`."
        )
        errors.append(FieldError("name", message))
    if len(description) > 255 or any(unicodedata.category(c) in LINE_BREAKING for c in description):
        errors.append(FieldError("description", "One line of at most 255 characters, none of them a control."))
    if errors:
        raise Invalid(errors)
    wanted = _known(permissions)
    guards.require_own(wanted, own)
    key = name.lower()
    if tx.scalar(select(Role.id).where((Role.name_key == key) | (Role.name == name))) is not None:
        raise _exists()
    role = Role(
        name=name,
        name_key=key,
        description=description,
        created_at=utc_now(),
        permissions=[RolePermission(permission=each) for each in sorted(wanted)],
    )
    tx.add(role)
    try:
        tx.flush()
    except IntegrityError:
        # Somebody else took the name between the look and the write.
        raise _exists() from None
    record(tx, Event.ROLE_CREATED, target=role.id, role=name, description=description, permissions=sorted(wanted))
    return role


def set_permissions(
    tx: Transaction, change: Change, role: Role, permissions: Collection[str], *, own: AbstractSet[str] | None
) -> tuple[set[str], set[str]]:
    """Let the role permit these and nothing else; what it gained and lost.

    Raises Invalid `unknown_permission`, Forbidden `exceeds_own_permissions`, Conflict `last_admin`.
    """
    before, after = _permissions(role), _known(permissions)
    gained, lost = after - before, before - after
    if gained or lost:
        guards.require_own(gained | lost, own)
        stays = [row for row in role.permissions if row.permission in after]
        role.permissions = stays + [RolePermission(permission=each) for each in sorted(gained)]
        tx.flush()
        guards.require_managers(tx, lost)
        record(
            tx,
            Event.ROLE_PERMISSIONS_CHANGED,
            target=role.id,
            role=role.name,
            before=sorted(before),
            after=sorted(after),
        )
        change.note(Kind.ROLES_CHANGED)
    return gained, lost


def remove(tx: Transaction, role: Role, *, own: AbstractSet[str] | None) -> None:
    """Raises Forbidden `exceeds_own_permissions`, Conflict `builtin_role` or `role_in_use`."""
    permissions = _permissions(role)
    guards.require_own(permissions, own)
    if role.builtin:
        raise Conflict("A built-in role can't be deleted.", code="builtin_role")
    if tx.scalar(select(RoleAssignment.user_id).where(RoleAssignment.role_id == role.id).limit(1)) is not None:
        raise Conflict("Users hold this role.", code="role_in_use")
    tx.delete(role)
    record(tx, Event.ROLE_DELETED, target=role.id, role=role.name, permissions=sorted(permissions))


def _permissions(role: Role) -> set[str]:
    return {row.permission for row in role.permissions}


def _known(permissions: Collection[str]) -> set[str]:
    errors = [
        FieldError(f"permissions.{i}", "There is no such permission.")
        for i, permission in enumerate(permissions)
        if permission not in PERMISSIONS
    ]
    if errors:
        raise Invalid(errors[:MAX_FIELD_ERRORS], code="unknown_permission")
    return set(permissions)


def _exists() -> Conflict:
    return Conflict("There is a role with this name, or one that differs in case alone.", code="role_exists")


def _is_uuid(name: str) -> bool:
    """In any spelling that somebody's UUID parser might take."""
    try:
        UUID(name)
    except ValueError:
        return False
    return True
