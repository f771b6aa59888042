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

from tokenserver.storage.feed import Entry, Feed, Kind
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
    """`etag`: without quotes. Weak: of one content there may be several signatures. `edition`: grows in this
    process with each list that names a revocation which the one before didn't."""

    token: str
    etag: str
    edition: int


class _Made(NamedTuple):
    of: tuple[int, int, str]
    issue: Issue
    revoked: dict[str, Any]


class SignedList:
    """One per process. `uri`: where the list is published. `stirred`: set when this process hears of a revocation.
    `grown_at`: when the newest edition was made, on the monotonic clock."""

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
        self.grown_at = float("-inf")
        self.stirred = threading.Event()
        feed.subscribe(self._stir, lambda _entries: self.stirred.set())

    def current(self) -> Issue:
        """With all that was revoked until a second ago. No SQL when nothing changed.

        Raises StoreUnavailable: what was revoked can't be known then, and an empty list would be a lie.
        """
        with self._lock:
            if self._made is None or time.monotonic() - self._looked_at >= REUSED:
                return self._look().issue
            return self._made.issue

    def newest(self) -> Issue:
        """With all that was revoked until this call: one round trip to Redis. Raises StoreUnavailable."""
        with self._lock:
            return self._look().issue

    def _look(self) -> _Made:
        now = time.time()  # before the look: the list is as of no later than this
        self._feed.sync()
        self._made = self._make(int(now) // TTL * TTL)
        self._looked_at = time.monotonic()
        return self._made

    def _stir(self, entry: Entry) -> None:
        if entry.kind in KINDS or entry.kind is Kind.EVERYTHING:
            self.stirred.set()

    def _make(self, iat: int) -> _Made:
        signer = self._signer()
        old, of = self._made, (self._revocation.version, iat, signer.kid)
        if old is not None and old.of == of:
            return old
        _, cutoffs = self._revocation.live()
        claims = self._claims(iat, cutoffs)
        etag = hashlib.sha256(json.dumps(claims).encode() + signer.kid.encode()).hexdigest()[:32]
        edition = 0 if old is None else old.issue.edition
        if old is not None and _says_more(claims["revoked"], old.revoked):
            edition += 1
            self.grown_at = time.monotonic()
        return _Made(of, Issue(sign_jwt(signer, TYP, claims), etag, edition), claims["revoked"])

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


def _says_more(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Than `old` did; what has expired since is no news."""
    if new["everything"] > old["everything"]:
        return True
    return any(at > old[kind].get(name, 0) for kind in KINDS.values() for name, at in new[kind].items())
