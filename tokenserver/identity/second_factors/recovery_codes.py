"""Recovery codes: for who lost their app and their passkeys. Ten, each good once (NIST SP 800-63B-4 section
3.1.2, look-up secrets)."""

import hashlib
import secrets
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, delete, func, select

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.identity.second_factors.models import RecoveryCode
from tokenserver.storage.sql import Transaction, utc_now

COUNT: Final = 10
# Crockford's: no letter looks like another or like a digit. Five bits each: a code has 80, so that its plain
# digest is worth nothing to who reads it.
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
ALIKE: Final = str.maketrans("oil", "011", " -")
LENGTH: Final = 16
GROUP: Final = 4


def generate() -> str:
    """Like `4mwz-9k2c-t7vh-x0pd`."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return "-".join(letters[i : i + GROUP] for i in range(0, LENGTH, GROUP))


def digest(user_id: UUID, code: str) -> bytes:
    """Of a code as people type it: in capitals, without dashes, with O for 0."""
    typed = code.lower().translate(ALIKE)
    return hashlib.sha256(user_id.bytes + typed.encode("utf-8", "surrogatepass")).digest()


def issue(tx: Transaction, user_id: UUID) -> list[str]:
    """New ones in the place of all others, to be shown this once."""
    codes = [generate() for _ in range(COUNT)]
    forget(tx, user_id)
    now = utc_now()
    tx.add_all(RecoveryCode(user_id=user_id, digest=digest(user_id, code), created_at=now) for code in codes)
    record(tx, Event.RECOVERY_CODES_ISSUED, target=user_id)
    return codes


def spend(tx: Transaction, user_id: UUID, code: str) -> bool:
    """Of all who try at once one gets True."""
    used = delete(RecoveryCode).where(RecoveryCode.user_id == user_id, RecoveryCode.digest == digest(user_id, code))
    if cast("CursorResult[Any]", tx.execute(used)).rowcount != 1:
        return False
    record(tx, Event.RECOVERY_CODE_USED, target=user_id, left=left(tx, user_id))
    return True


def left(tx: Transaction, user_id: UUID) -> int:
    query = select(func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user_id)
    return tx.scalar(query) or 0


def forget(tx: Transaction, user_id: UUID) -> None:
    tx.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
