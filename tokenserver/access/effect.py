"""What a change of a role's permissions would do to whom: measured in the transaction that makes it."""

from collections.abc import Set as AbstractSet
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from tokenserver.access.models import ACTIVE, USERS, RoleAssignment, RolePermission
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import Session
from tokenserver.web.dry_run import NAMED_USERS, Effect, Subject


def of_permissions(tx: Transaction, role_id: UUID, gained: AbstractSet[str], lost: AbstractSet[str]) -> Effect:
    """On the active users of the role who don't hold all that it gains and loses through other roles anyway."""
    changed = gained | lost
    if not changed:
        return Effect()
    other = aliased(RoleAssignment)
    elsewhere = (
        select(func.count(func.distinct(RolePermission.permission)))
        .join(other, other.role_id == RolePermission.role_id)
        .where(
            other.user_id == RoleAssignment.user_id,
            other.role_id != role_id,
            RolePermission.permission.in_(changed),
        )
        .correlate(RoleAssignment)
        .scalar_subquery()
    )
    affected = (
        select(USERS.c.id, USERS.c.username)
        .join(RoleAssignment, RoleAssignment.user_id == USERS.c.id)
        .where(RoleAssignment.role_id == role_id, USERS.c.status == ACTIVE, elsewhere < len(changed))
    )
    ids = affected.with_only_columns(USERS.c.id)
    live = (Session.user_id.in_(ids), Session.ended_at.is_(None), Session.expires_at > utc_now())
    named = dict(tx.execute(affected.order_by(USERS.c.username).limit(NAMED_USERS)).tuples().all())
    kept: dict[UUID, set[str]] = {user_id: set() for user_id in named}
    for user_id, permission in tx.execute(
        select(RoleAssignment.user_id, RolePermission.permission)
        .join(RolePermission, RolePermission.role_id == RoleAssignment.role_id)
        .where(
            RoleAssignment.user_id.in_(named),
            RoleAssignment.role_id != role_id,
            RolePermission.permission.in_(changed),
        )
        .distinct()
    ):
        kept[user_id].add(permission)
    return Effect(
        users=[
            Subject(str(user_id), sorted(gained - kept[user_id]), sorted(lost - kept[user_id]), username)
            for user_id, username in named.items()
        ],
        user_count=tx.scalar(select(func.count()).select_from(ids.subquery())) or 0,
        session_count=tx.scalar(select(func.count()).select_from(Session).where(*live)) or 0,
    )
