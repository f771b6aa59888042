"""The revocation list, signed for services that verify tokens by themselves (docs/adr/0025-revocation-list.md).

It holds what `revocation` decides by, but for the cutoffs of users: whoever makes one ends the user's sessions with
it, and those are listed. So nobody finds out from the list whose account was disabled.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tokenserver.storage.feed import Feed, Kind
from tokenserver.tokens.access_token import Signer, sign_jwt
from tokenserver.tokens.revocation import Cutoffs, Revocation
from tokenserver.verify.list_token import TYP, to_json
from tokenserver.verify.revoked import Revoked, digest

# What each kind is called in the list.
KINDS: Final = {Kind.SESSION: "session", Kind.FAMILY: "family", Kind.TOKEN: "token", Kind.CLIENT: "client"}
# A new list at least so often, in seconds, also when nothing was revoked: so a reader knows that nothing was. All
# processes begin one at the same moments, hence make the same list.
TTL: Final = 10
# One process looks again for changes at most so often, in seconds, however many ask.
REUSED: Final = 1


class Issue(NamedTuple):
    """`etag`: without quotes. Weak: of one content there may be several signatures."""

    token: str
    etag: str


class _Made(NamedTuple):
    of: tuple[int, int, str]
    issue: Issue


class SignedList:
    """One per process. `uri`: where the list is published."""

    def __init__(
        self, *, feed: Feed, revocation: Revocation, signer: Callable[[], Signer], issuer: str, uri: str
    ) -> None:
        self._feed = feed
        self._revocation = revocation
        self._signer = signer
        self._issuer = issuer
        self._uri = uri
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._looked_at = float("-inf")
        self._names: dict[tuple[Kind, str], bytes] = {}

    def current(self) -> Issue:
        """With all that was revoked until a second ago. No SQL when nothing changed.

        Raises StoreUnavailable: what was revoked can't be known then, and an empty list would be a lie.
        """
        with self._lock:
            if self._made is None or time.monotonic() - self._looked_at >= REUSED:
                now = time.time()  # before the look: the list is as of no later than this
                self._feed.sync()
                self._made = self._make(int(now) // TTL * TTL)
                self._looked_at = time.monotonic()
            return self._made.issue

    def _make(self, iat: int) -> _Made:
        signer = self._signer()
        version, cutoffs = self._revocation.live()
        of = (version, iat, signer.kid)
        if self._made is not None and self._made.of == of:
            return self._made
        claims = self._claims(iat, cutoffs)
        etag = hashlib.sha256(json.dumps(claims).encode() + signer.kid.encode()).hexdigest()[:32]
        return _Made(of, Issue(sign_jwt(signer, TYP, claims), etag))

    def _claims(self, iat: int, cutoffs: Cutoffs) -> dict[str, Any]:
        keep_ms = self._feed.retention_ms
        live = {key: at for key, at in cutoffs.items() if key[0] in KINDS and at > iat * 1000 - keep_ms}
        self._names = {key: self._names.get(key) or digest(key[1]) for key in live}
        listed: dict[str, dict[bytes, int]] = {word: {} for word in KINDS.values()}
        for key in sorted(live, key=self._names.__getitem__):
            listed[KINDS[key[0]]][self._names[key]] = live[key]
        return {
            "iss": self._issuer,
            "sub": self._uri,
            "iat": iat,
            "exp": iat + keep_ms // 1000,
            "ttl": TTL,
            "revoked": to_json(Revoked(**listed, everything=cutoffs.get((Kind.EVERYTHING, ""), 0))),
        }
