"""Knows which access tokens died before their time, without asking for each: reads the issuer's revocation list.

A thread of its own reads it, so that no request waits for it. It waits at the issuer for the next one, and asks
every few seconds where it may not wait. Lists only add: what was once revoked stays so for as long as a token may
live, whatever a later list says. How old the newest list may be is bounded; what comes after that is refused, or
asked about.
"""

import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final

from tokenserver.verify import https
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import InvalidToken, RevocationsUnavailable
from tokenserver.verify.jwks import KeySource
from tokenserver.verify.line import Line
from tokenserver.verify.list_token import MAX_LIST, ListToken, read_list
from tokenserver.verify.pace import Pace
from tokenserver.verify.revoked import Revoked

log = logging.getLogger(__name__)

LEEWAY: Final = 30
TIMEOUT: Final = 5


@dataclass(frozen=True, slots=True)
class Revocations:
    """How a verifier keeps up with revocations. Times in seconds.

    `max_staleness`: how old the last list may be. Past that, `introspect` is asked about each token and says
    whether it is active; without it everything is refused. `interval`: between two looks, where the issuer doesn't
    let this process wait for news. `on_enforced` is called for each revocation that came while this process ran, in
    the thread that reads: with its age at the moment from which this process refuses.
    """

    max_staleness: float = 120
    interval: float = 5
    introspect: Callable[[str], bool] | None = None
    on_enforced: Callable[[float], object] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.interval < self.max_staleness:
            raise ValueError("interval must be positive, and less than max_staleness")


@dataclass(frozen=True, slots=True)
class _Known:
    """`as_of`: what was revoked up to then is known. `good_until`: as far as lists may be believed."""

    as_of: float
    good_until: float
    revoked: Revoked


@dataclass(frozen=True, slots=True)
class _Question:
    """Asks for the list while nobody holds it that knows what to do with the answer. `wait` in s."""

    uri: Callable[[], str]
    etag: str | None
    wait: int
    line: Line

    def ask(self) -> "_Answer":
        began = time.monotonic()
        try:
            uri = self.uri()
            document = https.fetch_newer(uri, self.etag, self.line, timeout=TIMEOUT, limit=MAX_LIST, wait=self.wait)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, what is known stays so, and grows old
            return _Answer(self, time.monotonic() - began, error)
        return _Answer(self, time.monotonic() - began, None, uri, document)


@dataclass(frozen=True, slots=True)
class _Answer:
    """`took` in s. `document`: None where there is nothing new."""

    to: _Question
    took: float
    error: Exception | None
    uri: str = ""
    document: https.Document | None = None


class RevocationList:
    """The list of `issuer` at `uri`, or where `uri()` says, signed by one of `keys`. Safe to share between threads
    and to inherit by a fork; reads nothing before the first question."""

    def __init__(
        self,
        *,
        issuer: str,
        uri: str | Callable[[], str],
        keys: KeySource,
        options: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._uri = uri if callable(uri) else lambda: uri
        self._keys = keys
        self._options = options or Revocations()
        self._clock = clock
        self._etag: str | None = None
        self._known: _Known | None = None
        self._pace = Pace(self._options.interval)
        self._finalizer: weakref.finalize[[Event, Line], RevocationList] | None = None
        self._begin()
        _INSTANCES.add(self)

    def _begin(self) -> None:
        """Also in a child of a fork, where the parent's thread isn't and its lock may be held for ever."""
        self._lock = Lock()
        self._reader: Thread | None = None
        self._first_look = Event()
        self._end = Event()
        self._line = Line()
        if self._finalizer is not None:
            self._finalizer.detach()  # in a child, it would cut the parent's connection
        self._finalizer = weakref.finalize(self, _hang_up, self._end, self._line)

    def check(self, claims: Claims, token: str) -> None:
        """InvalidToken for what was revoked, RevocationsUnavailable when that can't be known."""
        if self._reader is None:
            self._start()
        if self._known is None:
            self._first_look.wait(TIMEOUT + 1)
        known = self._known
        if known is not None and self._clock() <= known.good_until:
            if known.revoked.hits(claims):
                raise InvalidToken("revoked")
        elif self._options.introspect is None:
            raise RevocationsUnavailable("no revocation list that is new enough")
        elif not self._options.introspect(token):
            raise InvalidToken("not active")

    @property
    def staleness(self) -> float | None:
        """Seconds since the moment up to which this process knows all revocations; None before the first list."""
        known = self._known
        return None if known is None else max(0.0, self._clock() - known.as_of)

    def close(self) -> None:
        """Ends the thread. The next question starts another."""
        _hang_up(self._end, self._line)
        reader = self._reader
        if reader is not None:
            reader.join()
        with self._lock:
            self._begin()

    def _start(self) -> None:
        with self._lock:
            if self._reader is None:
                # It holds no reference to this object, or the object would never go.
                arguments = (weakref.ref(self), self._end, self._first_look)
                self._reader = Thread(target=_read_on, args=arguments, name="revocation list", daemon=True)
                self._reader.start()

    def look(self) -> float:
        """Reads the list once; how many seconds to wait until the next look."""
        return self._take(self._question().ask())

    def _question(self) -> _Question:
        known = self._known
        # Who has no list wants the one that there is.
        wait = 0 if known is None or self._etag is None else self._pace.wait(known.good_until - self._clock())
        return _Question(self._uri, self._etag, wait, self._line)

    def _take(self, answer: _Answer) -> float:
        """The seconds until the next look."""
        wait, took, document = answer.to.wait, answer.took, answer.document
        if answer.error is not None:
            return self._fail(answer.error, wait)
        if document is None:
            return self._pace.after(wait=wait, took=took, goes_on=False, ttl=self._options.interval)
        try:
            now = self._clock()
            token = document.body.decode("ascii")
            newer = read_list(token, issuer=self._issuer, uri=answer.uri, keys=self._keys, now=now, leeway=LEEWAY)
        except Exception as error:  # noqa: BLE001 - as in `ask`
            return self._fail(error, wait)
        is_first = self._known is None
        if not self._learn(newer, now):
            return self._pace.after(wait=wait, took=took, goes_on=False, ttl=newer.ttl)
        self._etag = document.etag
        return self._pace.after(wait=wait, took=took, goes_on=is_first or document.waits, ttl=newer.ttl)

    def _fail(self, error: Exception, wait: int) -> float:
        log.warning("no new revocation list: %a", str(error) or type(error).__name__)
        return self._pace.after_failure(wait=wait)

    def _learn(self, newer: ListToken, now: float) -> bool:
        """Whether it says something new."""
        old = self._known
        before = old.revoked if old else Revoked()
        # Whatever was revoked so long ago is about tokens that have expired.
        forgetting = int((newer.iat - (newer.exp - newer.iat)) * 1000)
        revoked = before.adding(newer.revoked, forgetting=forgetting)
        as_of, good_until = newer.iat, min(newer.iat + self._options.max_staleness, newer.exp)
        if old and old.as_of > newer.iat:
            # An older list, by a cache or by somebody in between: what it says is true, but it makes nothing fresh.
            as_of, good_until = old.as_of, old.good_until
        self._known = _Known(as_of, good_until, revoked)
        if old is None:
            return True
        moments = tuple(revoked.since(old.revoked))
        if self._options.on_enforced:
            _tell(self._options.on_enforced, moments, now)
        return bool(moments) or newer.iat > old.as_of


def _tell(on_enforced: Callable[[float], object], moments: Iterable[int], now: float) -> None:
    for moment in moments:
        try:
            on_enforced(max(0.0, now - moment / 1000))
        except Exception:
            log.exception("on_enforced failed")


def _hang_up(end: Event, line: Line) -> None:
    end.set()
    line.cut()


def _read_on(reference: "weakref.ref[RevocationList]", end: Event, first_look: Event) -> None:
    pause = 0.0
    while not end.wait(pause):
        each = reference()
        if each is None:
            return
        question = each._question()  # noqa: SLF001 - of this module
        del each  # while it waits for an answer, its owner may let it go
        answer = question.ask()
        each = reference()
        if each is None or end.is_set():
            return
        pause = each._take(answer)  # noqa: SLF001 - of this module
        first_look.set()
        del each


_INSTANCES: "weakref.WeakSet[RevocationList]" = weakref.WeakSet()


def _begin_in_child() -> None:
    for each in _INSTANCES:
        each._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_begin_in_child)
