"""The tokens of who is at the console: in Redis, encrypted, behind a cookie that isn't stored."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from tokenserver.storage import sealing
from tokenserver.storage.feed import Feed, now_ms
from tokenserver.storage.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Tokens:
    """`expires_at` in ms since 1970: of the access token. `uncovered`: permissions that their user held and that
    were asked for in vain."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scope: str
    expires_at: int
    uncovered: list[str]

    @classmethod
    def of(cls, response: Mapping[str, Any], wanted: Iterable[str]) -> Self:
        """Of a token response (RFC 6749 section 5.1). `wanted`: permissions that it is about."""
        return cls(
            access_token=response["access_token"],
            refresh_token=response["refresh_token"],
            scope=response["scope"],
            expires_at=now_ms() + response["expires_in"] * 1000,
            uncovered=sorted(set(wanted) - set(response["scope"].split())),
        )


class HeldTokens:
    """Whoever has the cookie has the tokens; whoever has a dump of Redis has neither. `secrets`: of the ring,
    newest first. `lifetime` in s, since they were kept last. Every method raises StoreUnavailable."""

    def __init__(self, feed: Feed, secrets: Callable[[], Sequence[bytes]], lifetime: int) -> None:
        self._shelf = Shelf(feed, "c")
        self._secrets = secrets
        self._lifetime = lifetime

    def keep(self, cookie: str, tokens: Tokens) -> None:
        text = json.dumps(asdict(tokens)).encode()
        sealed = sealing.seal(text, self._secrets(), cookie).hex()
        self._shelf.ask(_digest(cookie), lambda client, key: client.set(key, sealed, ex=self._lifetime))

    def find(self, cookie: str) -> Tokens | None:
        sealed = self._shelf.ask(_digest(cookie), lambda client, key: client.get(key))
        text = sealing.unseal(bytes.fromhex(sealed), self._secrets(), cookie) if sealed else None
        known = json.loads(text) if text else None
        # Another version may have kept it in another shape: then its user signs in again, and is asked nothing.
        return Tokens(**known) if isinstance(known, dict) and known.keys() == set(Tokens.__slots__) else None

    def forget(self, cookie: str) -> None:
        self._shelf.ask(_digest(cookie), lambda client, key: client.delete(key))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
