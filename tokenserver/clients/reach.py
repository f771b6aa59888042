"""What a client reaches by itself: who may give it that, and what a change of it changes for others."""

from typing import Final

from sqlalchemy import func, select, union

from tokenserver.clients.metadata import STANDARD_SCOPES
from tokenserver.clients.models import ClientRow
from tokenserver.errors import Forbidden
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.web.dry_run import Effect, Subject
from tokenserver.web.holder import Holder

# RFC 7662 section 2.1: whoever introspects authenticates as a client; a token of its own it needs not.
BY_CREDENTIALS: Final = frozenset({"tokens:introspect"})


def own_permissions(row: ClientRow) -> frozenset[str]:
    """What it may do without any user."""
    if row.token_endpoint_auth_method == "none":
        return frozenset()
    permissions = frozenset(row.scope.split()) - STANDARD_SCOPES
    return permissions if "client_credentials" in row.grant_types else permissions & BY_CREDENTIALS


def require_within(holder: Holder, row: ClientRow, permissions: frozenset[str]) -> None:
    """Whoever decides about a client can act as it, so they hold what it reaches, and their token covers it.

    `permissions`: all that there are. A first-party client gets all that any user holds who comes by, unasked.
    Raises Forbidden.
    """
    reached = permissions if row.first_party else own_permissions(row)
    if not reached <= holder.permissions & holder.scope:
        raise Forbidden("The client reaches further than you do.", code="exceeds_own_permissions")


def effect(client_id: str, before: frozenset[str], after: frozenset[str], session_count: int = 0) -> Effect:
    """`before`, `after`: its own permissions."""
    subject = Subject(client_id, gains=sorted(after - before), loses=sorted(before - after))
    return Effect(clients=[subject] if before != after else [], session_count=session_count)


def live_sessions(tx: Transaction, client_id: str) -> int:
    """How many sessions it has a live family in, or started without one."""
    of_families = select(RefreshFamily.session_id).where(
        RefreshFamily.client_id == client_id, RefreshFamily.ended_at.is_(None)
    )
    has_family = select(RefreshFamily.id).where(RefreshFamily.session_id == Session.id).exists()
    without_family = select(Session.id).where(Session.client_id == client_id, ~has_family)
    its_own = union(of_families, without_family).subquery()
    live = (Session.id == its_own.c[0]) & Session.ended_at.is_(None) & (Session.expires_at > utc_now())
    return tx.scalar(select(func.count()).select_from(Session).join(its_own, live)) or 0
