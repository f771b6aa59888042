"""Passwords: Argon2id in a bounded number of threads, and what makes one unacceptable (NIST SP 800-63B-4 section
3.1.1.2).
"""

import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tokenserver.errors import FieldError, Overloaded
from tokenserver.identity.common_passwords import is_common
from tokenserver.identity.hash_places import HashPlaces
from tokenserver.identity.hash_threads import HashThreads
from tokenserver.identity.names import folded
from tokenserver.signals import metrics, traces
from tokenserver.web.language import marked

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 128
WAIT_SECONDS: Final = 5
# Shorter ones are part of many words.
LEAST_NAME: Final = 4
# NIST SP 800-63B-4 section 3.1.1.2 and OWASP ASVS 6.2.11: words of the context, and what is soon guessed from them.
SERVICE: Final = "tokenserver"
BESIDE_SERVICE: Final = 5


class Passwords:
    """`slots`: hashes computed at once in this process; `places`: over all of them. `queue`: how many requests may
    be here, waiting ones too. `is_breached`: whether one is known from a breach; may raise Unavailable.

    One hash takes 20 to 30 ms of a core and 19 MiB. Beyond the queue, callers are told to come again, so that
    threads remain for everything that needs no hash.
    """

    def __init__(
        self, *, slots: int, queue: int, places: HashPlaces, is_breached: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._is_breached = is_breached
        # OWASP's first choice of equal strength; the library's default (64 MiB, 4 lanes) allows 10 a second.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._admitted = threading.BoundedSemaphore(max(slots, queue))
        self._running = threading.BoundedSemaphore(slots)
        self._threads = HashThreads(slots, places)
        self._here: set[object] = set()
        self._nobodys_hash: str | None = None

    def hash(self, password: str) -> str:
        with self._slot():
            return self._threads.run(self._hasher.hash, normalized(password))

    def verify(self, stored: str | None, password: str) -> bool:
        """False after the same work when there is no such user (`stored` None). Raises Overloaded."""
        with self._slot():
            return self._threads.run(self._verify, stored, normalized(password))

    def _verify(self, stored: str | None, password: str) -> bool:
        if self._nobodys_hash is None:
            self._nobodys_hash = self._hasher.hash("nobody's")
        try:
            self._hasher.verify(stored or self._nobodys_hash, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    def require_room(self) -> None:
        """Before anything is looked up for a sign-in that would be turned away all the same. Raises Overloaded."""
        self._admit()
        self._admitted.release()

    def faults(self, password: str, *names: str) -> list[FieldError]:
        """Why it can't be a new password; none when it can. `names`: see `weakness`. Slow: not in a transaction.

        Raises Unavailable where breaches can't be asked about and the settings refuse then.
        """
        flaw = weakness(password, *names)
        if flaw is None and self._is_breached(normalized(password)):
            flaw = marked("This password is known from a data breach. Use another one.")
        return [FieldError("password", flaw)] if flaw else []

    def needs_rehash(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self._admit()
        me = object()
        self._here.add(me)
        metrics.hashes_waiting.set(len(self._here))
        try:
            since = time.perf_counter()
            if not self._running.acquire(timeout=WAIT_SECONDS):
                metrics.hash_refusals.count("too_slow")
                raise Overloaded(private="password hashing took too long")
            metrics.hash_wait_seconds.observe(time.perf_counter() - since)
            try:
                with traces.span("hash password"):
                    yield
            finally:
                self._running.release()
        finally:
            self._here.discard(me)
            metrics.hashes_waiting.set(len(self._here))
            self._admitted.release()

    def _admit(self) -> None:
        if not self._admitted.acquire(blocking=False):
            metrics.hash_refusals.count("queue_full")
            raise Overloaded(private="password hashing queue is full")


def normalized(password: str) -> str:
    """NFC: the same keys typed on another system give the same hash, and nothing else is folded together."""
    return unicodedata.normalize("NFC", password)


def weakness(password: str, *names: str) -> str | None:
    """Why a new password is refused, or None. `names`: the account's user name and e-mail address.

    No rule of composition (NIST SP 800-63B-4 section 3.1.1.2): what is weak for its pattern is on the list.
    """
    length = len(normalized(password))
    if length < MIN_LENGTH:
        return marked("Use at least 8 characters.")
    if length > MAX_LENGTH:
        return marked("Use at most 128 characters.")
    if is_common(password):
        return marked("This is one of the most common passwords. Use another one.")
    plain = folded(password)
    if any(word in plain for word in _words(names)):
        return marked("Don't use your name or e-mail address in the password.")
    if SERVICE in plain and len(plain) <= len(SERVICE) + BESIDE_SERVICE:
        return marked("Don't use little more than the name of this service.")
    return None


def _words(names: tuple[str, ...]) -> Iterator[str]:
    """Of an e-mail address, what stands before the @ too."""
    for name in names:
        word = folded(name)
        yield from (each for each in {word, word.partition("@")[0]} if len(each) >= LEAST_NAME)
