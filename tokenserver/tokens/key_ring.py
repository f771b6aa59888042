"""The ring of signing keys and MAC secrets of all processes and nodes that share its folder.

`signing_key` is one key, `key_manifest` the list of them, `key_files` the folder and its lock, `key_lifecycle` the
moves from state to state, `key_set` what a process holds in memory, `key_faults` what `doctor` looks for.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from tokenserver.config import SIGNING_ALGS
from tokenserver.errors import ConfigurationError, Conflict
from tokenserver.storage.aside import elsewhere
from tokenserver.tokens.key_faults import find_faults
from tokenserver.tokens.key_files import Draft, Fault, KeyFolder, RingUnusable
from tokenserver.tokens.key_lifecycle import Lifecycle, Rotation, needs
from tokenserver.tokens.key_manifest import SECRET, Entries, algorithms, find_entry
from tokenserver.tokens.key_set import KeySet
from tokenserver.tokens.signing_key import Signer
from tokenserver.verify.jwks import PublicKey

T = TypeVar("T")

# Seconds between two looks at the folder for who asks for the key set: shorter than a token's way from who made its
# key to who asks for it, and under load a look costs nothing then.
LOOK_SECONDS: Final = 0.01


class KeyRing:
    """`jwks_max_age`: how long verifiers cache the JWKS; `token_lifetime`: of any signed token; in seconds."""

    def __init__(
        self, folder: Path, *, jwks_max_age: int, token_lifetime: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._files = KeyFolder(folder)
        self._lifecycle = Lifecycle(jwks_max_age, clock)
        self._token_lifetime = token_lifetime
        self._clock = clock
        self._set: KeySet | None = None
        self._looked_at = 0.0
        self._is_looking = False
        self._lock = Lock()

    def ensure(self, alg: str) -> None:
        """Creates what is missing of: an active and a next key for `alg`, an active and a next MAC secret."""
        if alg not in SIGNING_ALGS:
            raise ConfigurationError("The signing algorithm must be one of " + ", ".join(SIGNING_ALGS) + ".")
        if self._lacks(alg):
            self._change(lambda draft: self._lifecycle.complete(draft, alg), create=True)
        self.reload_if_changed()

    def current(self) -> KeySet:
        """For two questions that must have the same answerer; the methods below ask it once each."""
        keys = self._set
        if keys is not None and self._clock() < keys.good_until:
            return keys
        with self._lock:
            keys = self._load() if self._set is None else self._set
            now = self._clock()
            # A retired key ends at its time, not when somebody comes to prune it.
            self._set = keys if now < keys.good_until else keys.without_expired(now)
            return self._set

    def published(self) -> KeySet:
        """For verifiers, who ask because of a key that they don't know: what another process has made or thrown
        away is seen at once. Of a ring that can't be used, what was loaded of it."""
        if self._is_time_to_look():
            self._looked_at = self._clock()
            self._is_looking = True
            # One at a time, and not where others wait: the folder of a network may not answer.
            elsewhere(self._look_for_all)
        return self.current()

    def published_at_once(self) -> KeySet | None:
        """`published`, where nobody has to look for it; else None."""
        return None if self._is_time_to_look() else self.current()

    def _is_time_to_look(self) -> bool:
        return not (self._is_looking or 0 <= self._clock() - self._looked_at < LOOK_SECONDS)

    def signer(self, alg: str) -> Signer:
        """Raises RingUnusable when there is no active key for `alg`."""
        try:
            return self.current().signer(alg)
        except RingUnusable:
            # Another process may have made it just now, for a client that registered for it; whether this thread
            # or another one of this process is the first to see that doesn't matter.
            self.reload_if_changed()
            return self.current().signer(alg)

    def find(self, kid: str) -> PublicKey | None:
        found = self.current().find(kid)
        if found is None:
            self._look()
            found = self.current().find(kid)
        return found

    def jwks(self) -> dict[str, Any]:
        return self.current().jwks()

    @property
    def jwks_bytes(self) -> bytes:
        return self.current().jwks_bytes

    @property
    def etag(self) -> str:
        """Without quotes."""
        return self.current().etag

    def secrets(self, purpose: str) -> tuple[bytes, ...]:
        return self.current().secrets(purpose)

    def entries(self) -> Entries:
        """The signing keys, retired ones until they are pruned."""
        return tuple(entry for entry in self.current().entries if entry.alg != SECRET)

    def secret_entries(self) -> Entries:
        return tuple(entry for entry in self.current().entries if entry.alg == SECRET)

    def reload_if_changed(self) -> bool:
        """To be called every few seconds: one `stat` when nothing changed.

        ConfigurationError for a ring that can't be used; what was loaded, and isn't thrown away, stays in use.
        """
        if self._set is not None and self._files.stamp() == self._set.stamp:
            return False
        with self._lock:
            if self._set is not None and self._files.stamp() == self._set.stamp:
                return False
            self._set = self._load()
        return True

    def rotate(self, alg: str | None = None, *, emergency: bool = False) -> Rotation:
        """The keys of `alg`, or of every algorithm in the ring: next becomes active, active retired.

        Conflict `next_key_too_young` while verifiers may not know the next key yet. In an emergency all keys of the
        algorithm, the published ones too, are thrown away at once: who could read one of the files could read all
        (the MAC secrets too, see `rotate_secret`).
        """

        def rotate(draft: Draft) -> Rotation:
            algs = tuple(each for each in algorithms(draft.entries) if alg in {each, None})
            if not algs:
                raise Conflict("The key ring has no key for this algorithm.", code="no_such_key")
            return self._lifecycle.advance(draft, algs, keep=self._token_lifetime, emergency=emergency)

        return self._change(rotate)

    def check_rotation(self) -> None:
        """Raises what `rotate` would raise now."""
        entries, _ = self._files.read()
        for alg in algorithms(entries):
            self._files.load(self._lifecycle.successor(entries, alg))

    def rotate_if_due(self, interval: int) -> Rotation | None:
        """Rotates the keys that were active for `interval` seconds (0: never) and have a successor that is ready.

        Any number of processes may call this at the same moment: one of them rotates.
        """

        def rotate(draft: Draft) -> Rotation | None:
            due = self._lifecycle.due(draft.entries, interval)
            return self._lifecycle.advance(draft, due, keep=self._token_lifetime) if due else None

        return self._change(rotate) if self._lifecycle.due(self.current().entries, interval) else None

    def rotate_secret(self, keep: int, *, emergency: bool = False) -> Rotation:
        """`keep`: lifetime in seconds of what bears a MAC. An emergency ends all of it at once."""
        return self._change(lambda draft: self._lifecycle.advance(draft, (SECRET,), keep=keep, emergency=emergency))

    def prune(self) -> Entries:
        """Deletes the retired keys and secrets whose time has passed."""

        def prune(draft: Draft) -> Entries:
            gone = self._lifecycle.expired(draft.entries)
            draft.entries = tuple(entry for entry in draft.entries if entry not in gone)
            return gone

        return self._change(prune) if self._lifecycle.expired(self._files.read()[0]) else ()

    def faults(self, rotation_interval: int = 0) -> list[Fault]:
        """What is wrong with the folder and the ring in it, each with what to do."""
        return find_faults(self._files, self._lifecycle, rotation_interval)

    def _look_for_all(self) -> None:
        try:
            self._look()
        finally:
            self._is_looking = False

    def _look(self) -> None:
        with suppress(ConfigurationError):  # nothing to do with who asks; `reload_if_changed` says it elsewhere
            self.reload_if_changed()

    def _load(self) -> KeySet:
        known = self._set.material if self._set else {}
        while True:
            entries, stamp = self._files.read()
            now = self._clock()
            wanted = [entry for entry in entries if entry.is_published(now)]
            try:
                material = {e.kid: known.get(e.kid) or self._files.load(e) for e in wanted}
            except RingUnusable:
                # A key that another process pruned since the manifest was read is no fault.
                if self._files.stamp() != stamp:
                    continue
                # Whatever else is broken, a key thrown away in an emergency is not used any more.
                self._set = self._set and self._set.only(entries)
                raise
            return KeySet(entries, material, stamp, now)

    def _change(self, move: Callable[[Draft], T], *, create: bool = False) -> T:
        with self._files.change(create=create) as draft:
            result = move(draft)
        # The change stands whether or not another file of the ring is broken; the next reload says that.
        with suppress(RingUnusable):
            self.reload_if_changed()
        return result

    def _lacks(self, alg: str) -> bool:
        try:
            entries, _ = self._files.read()
        except RingUnusable:
            return True
        return not all(find_entry(entries, *need) for need in needs(alg))
