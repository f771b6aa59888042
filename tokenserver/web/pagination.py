"""Lists in pages: `limit`, and a `cursor` that only this server can make."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from flask import request

from tokenserver.errors import FieldError, Invalid

T = TypeVar("T")
DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
MAC_BYTES: Final = 16


class Pages:
    """`secrets`: the ring's MAC secrets for cursors, newest first."""

    def __init__(self, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self._secrets = secrets

    def arguments(self, listing: str) -> tuple[int, list[Any] | None]:
        """`limit` and what the cursor of this listing says. Raises Invalid."""
        errors = [
            FieldError(name, "Unknown parameter.") for name in request.args if name not in {"limit", "cursor"}
        ]
        text = request.args.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
        if not 1 <= limit <= MAX_LIMIT:
            errors.append(FieldError("limit", f"A whole number from 1 to {MAX_LIMIT}."))
        cursor = request.args.get("cursor")
        position = None
        if cursor is not None:
            position = self._open(listing, cursor)
            if position is None:
                errors.append(FieldError("cursor", "Not a cursor of this list."))
        if errors:
            raise Invalid(errors)
        return limit, position

    def page(
        self, listing: str, found: Sequence[T], limit: int, position: Callable[[T], list[Any]]
    ) -> dict[str, Any]:
        """`found`: up to limit + 1 rows, of which the last one only says that there is more."""
        items = found[:limit]
        more = len(found) > limit
        return {"items": items, "next_cursor": self._seal(listing, position(items[-1])) if more else None}

    def _seal(self, listing: str, position: list[Any]) -> str:
        payload = json.dumps([listing, *position], separators=(",", ":")).encode()
        return urlsafe_b64encode(_mac(self._secrets()[0], payload) + payload).rstrip(b"=").decode()

    def _open(self, listing: str, cursor: str) -> list[Any] | None:
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"==")
        except ValueError:
            return None
        mac, payload = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not any(hmac.compare_digest(_mac(secret, payload), mac) for secret in self._secrets()):
            return None
        name, *position = json.loads(payload)
        return position if name == listing else None


def _mac(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, payload, hashlib.sha256)[:MAC_BYTES]
