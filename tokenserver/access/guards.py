"""The two guards of every change of rights: nobody hands on what they don't hold, and somebody can always manage
roles."""

from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import func, select

from tokenserver.access.models import ACTIVE, USERS, Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import ADMIN
from tokenserver.errors import Conflict, Forbidden
from tokenserver.storage.sql import Transaction
from tokenserver.web.holder import current_holder

# Each of these must always be held by somebody who can sign in, be it by the same user or not.
MANAGING: Final = frozenset({"roles:assign", "roles:write"})


def lock(tx: Transaction) -> None:
    """Take turns with all that change rights. First in a transaction, before it reads what it decides by: two
    admins who remove each other, each sparing the one that the other removes, would leave nobody."""
    tx.execute(select(Role.id).where(Role.name == ADMIN).with_for_update())


def can_manage(tx: Transaction) -> bool:
    """Whether users who can sign in hold all of MANAGING between them."""
    held = (
        select(func.count(func.distinct(RolePermission.permission)))
        .join(RoleAssignment, RoleAssignment.role_id == RolePermission.role_id)
        .join(USERS, USERS.c.id == RoleAssignment.user_id)
        .where(RolePermission.permission.in_(MANAGING), USERS.c.status == ACTIVE)
    )
    return tx.scalar(held) == len(MANAGING)


def require_managers(tx: Transaction, lost: AbstractSet[str]) -> None:
    """After a change, behind `lock`. `lost`: permissions that it took from somebody. Raises Conflict."""
    if lost & MANAGING and not can_manage(tx):
        raise Conflict("Nobody could manage roles any more.", code="last_admin")


def own_permissions(tx: Transaction) -> frozenset[str]:
    """What the caller of this request may hand on or take away: what they hold as of this transaction, so that who
    lost it a moment ago can't, and what their token covers."""
    holder = current_holder()
    if holder.user_id is None:
        return holder.permissions & holder.scope
    held = (
        select(RolePermission.permission)
        .join(RoleAssignment, RoleAssignment.role_id == RolePermission.role_id)
        .join(USERS, USERS.c.id == RoleAssignment.user_id)
        .where(RoleAssignment.user_id == holder.user_id, USERS.c.status == ACTIVE)
        .distinct()
    )
    return holder.scope & set(tx.scalars(held))


def require_own(touched: AbstractSet[str], own: AbstractSet[str] | None) -> None:
    """`touched`: permissions that are given or taken. `own`: `own_permissions`; None for operators, who are not
    guarded. Raises Forbidden."""
    missing = touched - own if own is not None else set()
    if missing:
        raise Forbidden(
            "This gives or takes permissions that you don't hold yourself, or that your token doesn't cover.",
            code="exceeds_own_permissions",
            private=" ".join(sorted(missing)),
        )
