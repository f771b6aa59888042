"""The moves of keys and MAC secrets from state to state: next, active, retired, gone.

OpenID Connect Core section 10.1.1: a new key is published before it signs, and an old one while its tokens live.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Final, NamedTuple

from tokenserver.errors import Conflict
from tokenserver.tokens.key_files import Draft
from tokenserver.tokens.key_manifest import SECRET, Entries, Entry, NewState, algorithms, find_entry, rfc3339

# Seconds: for clocks that differ, and for processes that see a change late.
SKEW: Final = 60


class Rotation(NamedTuple):
    """`at`: unix time when it took hold. After an emergency, nothing issued up to then may be accepted any more."""

    at: float
    activated: Entries
    replaced: Entries


def needs(alg: str) -> Iterator[tuple[str, NewState]]:
    """What a ring must have before `alg` can be used, as (alg, state)."""
    return product((alg, SECRET), ("active", "next"))


class Lifecycle:
    """`jwks_max_age`: seconds that a verifier may cache the JWKS."""

    def __init__(self, jwks_max_age: int, clock: Callable[[], float]) -> None:
        self._jwks_max_age = jwks_max_age
        self._clock = clock

    def complete(self, draft: Draft, alg: str) -> None:
        for each, state in needs(alg):
            if not find_entry(draft.entries, each, state):
                kid = draft.create(each)
                draft.entries += (_new(kid, each, state, self._clock()),)

    def advance(self, draft: Draft, algs: Sequence[str], *, keep: int, emergency: bool = False) -> Rotation:
        """Next becomes active, active retired for `keep` seconds. An emergency makes all of them anew."""
        before = draft.entries
        if not emergency:
            for alg in algs:
                draft.check(self.successor(draft.entries, alg))
        states: tuple[NewState, ...] = ("active", "next") if emergency else ("next",)
        fresh = [(draft.create(alg), alg, state) for alg in algs for state in states]
        now = self._clock()  # making keys took a while
        moved = tuple(_move(entry, now, keep) if entry.alg in algs else entry for entry in before)
        stays = tuple(entry for entry in before if entry.alg not in algs) if emergency else moved
        draft.entries = (*stays, *(_new(kid, alg, state, now) for kid, alg, state in fresh))
        activated = tuple(e for e in draft.entries if e.alg in algs and e.state == "active")
        replaced = tuple(e for e in before if e.alg in algs and (emergency or e.state == "active"))
        return Rotation(now, activated, replaced)

    def due(self, entries: Entries, interval: int) -> tuple[str, ...]:
        """The algorithms whose key is `interval` seconds old (0: never) and has a successor that is ready."""

        def is_due(alg: str) -> bool:
            active, successor = find_entry(entries, alg, "active"), find_entry(entries, alg, "next")
            is_old = active is not None and self.is_older(active, interval)
            return is_old and successor is not None and self._clock() >= self._ready_at(successor)

        return tuple(filter(is_due, algorithms(entries))) if interval else ()

    def is_older(self, active: Entry, interval: int) -> bool:
        return active.activated_at is not None and self._clock() >= active.activated_at + interval

    def expired(self, entries: Entries) -> Entries:
        now = self._clock()
        return tuple(entry for entry in entries if not entry.is_published(now))

    def _ready_at(self, entry: Entry) -> int:
        # Until then a verifier may hold a JWKS without the key. A secret has to reach our own processes alone.
        return entry.published_at + SKEW + (0 if entry.alg == SECRET else self._jwks_max_age)

    def successor(self, entries: Entries, alg: str) -> Entry:
        """The next key. Raises Conflict `no_next_key`, `next_key_too_young`."""
        entry = find_entry(entries, alg, "next")
        if entry is None:
            raise Conflict("There is no next key; `tokenserver init` creates it.", code="no_next_key")
        if self._clock() < self._ready_at(entry):
            ready = rfc3339(self._ready_at(entry))
            sentence = (
                f"Verifiers may not know the next key yet. It is ready at {ready}; --emergency overrides this."
            )
            raise Conflict(sentence, code="next_key_too_young")
        return entry


def _new(kid: str, alg: str, state: NewState, now: float) -> Entry:
    at = math.ceil(now)  # never younger than it says
    activated_at = at if state == "active" else None
    return Entry(kid=kid, alg=alg, state=state, created_at=at, published_at=at, activated_at=activated_at)


def _move(entry: Entry, now: float, keep: int) -> Entry:
    at = math.ceil(now)
    if entry.state == "next":
        return replace(entry, state="active", activated_at=at)
    if entry.state == "active":
        return replace(entry, state="retired", retired_at=at, remove_after=at + keep + SKEW)
    return entry
