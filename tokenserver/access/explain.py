"""Why a user may or may not do something: through which role, granted by whom and when, or what is missing."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Select, func, select

from tokenserver.access.models import ACTIVE, USERS, Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.access.rights import Rights
from tokenserver.access.roles import CANONICAL_UUID
from tokenserver.errors import FieldError, Invalid, NotFound
from tokenserver.storage.sql import Transaction

NEAREST: Final = 3
Owners = Mapping[str, Callable[[Transaction, UUID], UUID | None]]


class Person(Protocol):
    """A user, as `identity` knows them."""

    @property
    def id(self) -> UUID: ...
    @property
    def username(self) -> str: ...
    @property
    def status(self) -> str: ...


def explain(
    tx: Transaction, person: Person, permission: str, resource: str | None, owners: Owners
) -> dict[str, Any]:
    """What any request of this user is judged by; a single token may cover less.

    `owners`: kind of resource → who owns one. Raises Invalid `unknown_permission`, NotFound `resource_not_found`.
    """
    if permission not in PERMISSIONS:
        raise Invalid([FieldError("permission", "There is no such permission.")], code="unknown_permission")
    is_owner = resource is not None and _owns(tx, person, permission, resource, owners)
    grants = _grants(tx, person.id, permission)
    if person.status != ACTIVE:
        reason = "user_disabled"
    elif grants:
        reason = "granted"
    else:
        reason = "owner" if is_owner else "not_granted"
    return {
        "user": {"id": person.id, "username": person.username, "status": person.status},
        "permission": permission,
        "resource": resource,
        "decision": "allow" if reason in {"granted", "owner"} else "deny",
        "reason": reason,
        "grants": grants,
        "nearest": _nearest(tx, person.id, permission) if reason == "not_granted" else [],
    }


def _owns(tx: Transaction, person: Person, permission: str, resource: str, owners: Owners) -> bool:
    """Whether the resource is the user's and the permission is about other people's, as `posts:delete:any` is."""
    parts = re.fullmatch(r"/([a-z]+)/([^/]+)", resource)
    if parts is None or parts[1] not in owners or not CANONICAL_UUID.fullmatch(parts[2]):
        known = ", ".join(f"/{kind}/{{id}}" for kind in owners)
        raise Invalid([FieldError("resource", f"One of {known}.")])
    owner = owners[parts[1]](tx, UUID(parts[2]))
    if owner is None:
        raise NotFound("There is no such resource.", code="resource_not_found")
    return owner == person.id and permission.startswith(f"{parts[1]}:") and permission.endswith(":any")


def _grants(tx: Transaction, user_id: UUID, permission: str) -> list[dict[str, Any]]:
    rows = tx.execute(
        select(Role.name, Role.id, RoleAssignment.granted_by, RoleAssignment.granted_at)
        .join(RoleAssignment, RoleAssignment.role_id == Role.id)
        .join(RolePermission, RolePermission.role_id == Role.id)
        .where(RoleAssignment.user_id == user_id, RolePermission.permission == permission)
        .order_by(RoleAssignment.granted_at, Role.name)
    ).all()
    givers = {row.granted_by for row in rows if CANONICAL_UUID.fullmatch(row.granted_by)}
    query = select(USERS.c.id, USERS.c.username).where(USERS.c.id.in_([UUID(each) for each in givers]))
    names = {str(user_id): username for user_id, username in tx.execute(query)}
    return [
        {
            "role": row.name,
            "role_id": row.id,
            "granted_by": row.granted_by,
            "granted_by_name": names.get(row.granted_by),
            "granted_at": row.granted_at,
        }
        for row in rows
    ]


def _nearest(tx: Transaction, user_id: UUID, permission: str) -> list[dict[str, Any]]:
    """The roles that would do, those first that give the least besides."""
    held = Rights.read(tx, user_id).permissions
    query: Select[tuple[str, UUID]] = (
        select(Role.name, Role.id)
        .join(RolePermission, RolePermission.role_id == Role.id)
        .where(
            Role.id.in_(select(RolePermission.role_id).where(RolePermission.permission == permission)),
            RolePermission.permission.not_in(held),
        )
        .group_by(Role.id, Role.name)
        .order_by(func.count(), Role.name)
        .limit(NEAREST)
    )
    names = {role_id: name for name, role_id in tx.execute(query)}
    adds: dict[UUID, list[str]] = {role_id: [] for role_id in names}
    given = select(RolePermission).where(RolePermission.role_id.in_(names))
    for row in tx.scalars(given.order_by(RolePermission.permission)):
        if row.permission not in held:
            adds[row.role_id].append(row.permission)
    return [{"role": names[role_id], "role_id": role_id, "adds": adds[role_id]} for role_id in names]
