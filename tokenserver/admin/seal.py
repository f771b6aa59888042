"""What `/admin/logs/checkpoint` tells: the newest checkpoint, and how many events came after it."""

from typing import Any

from sqlalchemy import select

from tokenserver.audit.checkpoint import parse
from tokenserver.audit.models import AuditCheckpoint
from tokenserver.storage.sql import Transaction
from tokenserver.verify.jwks import KeySource


def read(tx: Transaction, keys: KeySource) -> dict[str, Any]:
    newest = tx.scalar(select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1))
    if newest is None:
        return dict.fromkeys(("number", "at", "kid", "signature"))
    kid, signature = _signature(newest.jws, keys)
    return {"number": newest.number, "at": newest.at, "kid": kid, "signature": signature}


def _signature(jws: str, keys: KeySource) -> tuple[str | None, str]:
    try:
        checkpoint = parse(jws)
    except ValueError:
        return None, "wrong"
    key = keys.find(checkpoint.kid)
    if key is None:
        return checkpoint.kid, "unknown_key"
    return checkpoint.kid, "good" if checkpoint.is_signed_with(key) else "wrong"
