"""Recording an event: one link of a chain, in the caller's transaction."""

from typing import Any
from uuid import UUID

from tokenserver.audit.chain import append
from tokenserver.audit.events import Event
from tokenserver.storage.sql import Transaction, new_id, utc_now
from tokenserver.web.request_context import current


def record(
    tx: Transaction,
    event: Event,
    *,
    target: UUID | str | None = None,
    reason: str | None = None,
    outcome: str = "success",
    **details: Any,
) -> None:
    """`details`: what changed, before and after. Never a password, a secret, a token or a code."""
    context = current()
    append(
        tx,
        {
            "id": new_id(),
            "at": utc_now(),
            "event": event.value,
            "outcome": outcome,
            "reason": reason,
            "actor": context.actor,
            "client_id": context.client_id,
            "address": context.address,
            "request_id": context.request_id,
            "method": context.method,
            "path": context.path,
            "target": None if target is None else str(target),
            "details": details,
        },
    )
