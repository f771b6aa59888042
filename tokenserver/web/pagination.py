"""Lists in pages: `limit`, and a `cursor` that only this server can make."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from marshmallow import Schema, ValidationError, fields, validate

from tokenserver.errors import FieldError, Invalid

T = TypeVar("T")
DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
MAC_BYTES: Final = 16


def _digits(text: str) -> int:
    # int() takes signs, spaces, underscores and the digits of every script.
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise ValidationError(f"A whole number from 1 to {MAX_LIMIT}.")
    return int(text)


class Limit(fields.Integer):
    """As it stands in a URL."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        del attr, data, kwargs
        return _digits(str(value))


class PageQuerySchema(Schema):
    """The parameters of every list; lists with filters add theirs."""

    limit = Limit(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, MAX_LIMIT, error=f"A whole number from 1 to {MAX_LIMIT}."),
        metadata={"description": "How many items at most."},
    )
    cursor = fields.String(metadata={"description": "`next_cursor` of the page before."})


class Pages:
    """`secrets`: the ring's MAC secrets for cursors, newest first."""

    def __init__(self, secrets: Callable[[], tuple[bytes, ...]]) -> None:
        self._secrets = secrets

    def position(self, listing: str, query: Mapping[str, Any]) -> list[Any] | None:
        """Where the page begins that a loaded query asks for. `listing`: the list and its filters, since a cursor
        of one can't go on in another. Raises Invalid."""
        cursor = query.get("cursor")
        if cursor is None:
            return None
        position = self._open(listing, cursor)
        if position is None:
            raise Invalid([FieldError("cursor", "Not a cursor of this list.")])
        return position

    def page(
        self, listing: str, found: Sequence[T], limit: int, position: Callable[[T], list[Any]]
    ) -> dict[str, Any]:
        """`found`: up to limit + 1 rows, of which the last one only says that there is more."""
        items = found[:limit]
        more = len(found) > limit
        return {"items": items, "next_cursor": self._seal(listing, position(items[-1])) if more else None}

    def _seal(self, listing: str, position: list[Any]) -> str:
        payload = json.dumps(position, separators=(",", ":")).encode()
        return _text(_mac(self._secrets()[0], listing, payload) + payload)

    def _open(self, listing: str, cursor: str) -> list[Any] | None:
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"==")
        except ValueError:
            return None
        if cursor != _text(raw):
            return None  # the decoder ignores stray characters; one spelling is enough
        mac, payload = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not any(hmac.compare_digest(_mac(secret, listing, payload), mac) for secret in self._secrets()):
            return None
        position: list[Any] = json.loads(payload)
        return position


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(secret: bytes, listing: str, payload: bytes) -> bytes:
    message = listing.encode("utf-8", "surrogatepass") + b"\0" + payload
    return hmac.digest(secret, message, hashlib.sha256)[:MAC_BYTES]
