"""Disabling and enabling a user: who is disabled is out at once, and somebody who can manage roles stays."""

from collections.abc import Set as AbstractSet
from typing import Protocol
from uuid import UUID

from tokenserver.identity.models import User
from tokenserver.identity.people import DISABLED, People
from tokenserver.storage.feed import Change
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import Sessions


class Managers(Protocol):
    """Who can manage roles: `access` knows."""

    def lock(self, tx: Transaction) -> None: ...
    def require_managers(self, tx: Transaction, lost: AbstractSet[str]) -> None: ...


def change_status(
    tx: Transaction,
    change: Change,
    user_id: UUID,
    status: str,
    *,
    permissions: AbstractSet[str],
    people: People,
    managers: Managers,
    sessions: Sessions,
) -> User:
    """Behind `managers.lock`. `permissions`: what the user holds. Raises NotFound, Conflict `last_admin`."""
    user = people.set_status(tx, change, user_id, status, sessions)
    if status == DISABLED:
        tx.flush()
        managers.require_managers(tx, permissions)
    return user
