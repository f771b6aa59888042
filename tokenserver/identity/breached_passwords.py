"""Passwords known from breaches, asked of a service that doesn't learn them (k-anonymity).

The protocol is that of Have I Been Pwned, version 3 ("Searching by range"): five hexadecimal digits of the SHA-1
digest go out, all digests that begin with them come back. `Add-Padding` hides how many those are.
"""

import hashlib
import logging
import threading
import time
from typing import Final

from tokenserver.config import Settings
from tokenserver.errors import Unavailable
from tokenserver.web.fetch import Fetcher, FetchFailed

logger = logging.getLogger("tokenserver.passwords")

DEADLINE_SECONDS: Final = 2.0
# For so long after a failure it isn't asked: while it is away, nobody waits for it.
PAUSE_SECONDS: Final = 30.0
PREFIX: Final = 5
MAX_BODY: Final = 1024 * 1024
HEADERS: Final = {"Add-Padding": "true"}


class BreachedPasswords:
    """Without `settings.breached_passwords_url` none is known. `slots`: requests at once in this process."""

    def __init__(self, settings: Settings, *, slots: int, seconds: float = DEADLINE_SECONDS) -> None:
        self._url = settings.breached_passwords_url.rstrip("/")
        self._refuses = settings.breached_passwords_away == "refuse"
        self._fetcher = Fetcher(settings, seconds=seconds)
        self._slots = threading.BoundedSemaphore(slots)
        self._away_until = 0.0

    def knows(self, password: str) -> bool:
        """While the service is away: False, or Unavailable is raised, as the settings say."""
        if not self._url:
            return False
        # Not for safety: it is what such services index by.
        digest = hashlib.sha1(password.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest().upper()
        try:
            return digest[PREFIX:] in self._range(digest[:PREFIX])
        except FetchFailed as error:
            if self._refuses:
                raise Unavailable(
                    "New passwords can't be checked right now. Try again.",
                    code="password_check_unavailable",
                    private=f"breached passwords: {error}",
                ) from None
            return False

    def _range(self, prefix: str) -> set[str]:
        """The rest of each digest that is known. Raises FetchFailed."""
        if time.monotonic() < self._away_until:
            raise FetchFailed("was away a moment ago")
        if not self._slots.acquire(blocking=False):
            raise FetchFailed("too many at once")
        try:
            text = self._fetcher.get(
                f"{self._url}/{prefix}", accept="text/plain", headers=HEADERS, limit=MAX_BODY
            ).body.decode("ascii", "replace")
        except FetchFailed as error:
            self._away_until = time.monotonic() + PAUSE_SECONDS
            logger.warning("the service for breached passwords is away: %s", error)
            raise
        finally:
            self._slots.release()
        found = (line.partition(":") for line in text.splitlines())
        # What was seen never is padding.
        return {suffix.strip().upper() for suffix, _, seen in found if seen.strip() not in {"", "0"}}
