"""What `/admin/stats` tells: how the rights are spread now, and how often they were used in a window."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select

from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.audit import usage
from tokenserver.audit.usage import Measure
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import Session


def read(tx: Transaction, window: str) -> dict[str, Any]:
    """A constant number of queries, none of which looks at the log."""
    counts = usage.totals(tx, window)
    return {
        "window": window,
        "since": datetime.fromtimestamp(usage.begin_of(window), UTC),
        "until": utc_now(),
        **_rights(tx, counts),
        "tokens": [
            {"grant_type": grant, "client_id": client, "count": count}
            for (measure, grant, client), count in sorted(counts.items())
            if measure is Measure.TOKEN
        ],
        "tokens_with_roles_omitted": sum(
            count for (measure, *_), count in counts.items() if measure is Measure.ROLES_OMITTED
        ),
        "active_sessions": tx.scalar(
            select(func.count()).where(Session.ended_at.is_(None), Session.expires_at > utc_now())
        ),
        "denials": [
            {"endpoint": endpoint, "reason": reason, "count": count}
            for (measure, endpoint, reason), count in sorted(counts.items())
            if measure is Measure.DENIAL
        ],
    }


def _rights(tx: Transaction, counts: dict[tuple[Measure, str, str], int]) -> dict[str, Any]:
    users = dict(
        tx.execute(select(RoleAssignment.role_id, func.count()).group_by(RoleAssignment.role_id)).tuples().all()
    )
    holders = dict(
        tx.execute(
            select(RolePermission.permission, func.count(func.distinct(RoleAssignment.user_id)))
            .join(RoleAssignment, RoleAssignment.role_id == RolePermission.role_id)
            .group_by(RolePermission.permission)
        )
        .tuples()
        .all()
    )
    roles = tx.scalars(select(Role).order_by(Role.name)).all()
    permissions_of = {role.name: sorted(each.permission for each in role.permissions) for role in roles}
    return {
        "roles": [
            {"role": role.name, "user_count": users.get(role.id, 0), "permissions": permissions_of[role.name]}
            for role in roles
        ],
        "permissions": [
            {
                "permission": permission,
                "roles": [name for name, held in permissions_of.items() if permission in held],
                "holder_count": holders.get(permission, 0),
                "allowed": counts.get((Measure.ALLOWED, permission, ""), 0),
                "denied": counts.get((Measure.DENIED, permission, ""), 0),
            }
            for permission in PERMISSIONS
        ],
    }
