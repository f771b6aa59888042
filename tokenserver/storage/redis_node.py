"""One Redis process: its connections, which all belong to it, and a circuit breaker."""

import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis.connection import AbstractConnection

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.redis_client import HeldConnections
from tokenserver.storage.redis_location import OPTIONS, TIMEOUT_SECONDS

T = TypeVar("T")

# Loading, a replica, memory full, persistence broken, not allowed in. A script wraps the word in a sentence.
NOT_NOW: Final = re.compile(
    r"\b(BUSY|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|OOM|READONLY|WRONGPASS)\b"
)
# So long nobody asks a store that didn't answer; then one caller finds out for all.
PAUSE_SECONDS: Final = 0.25


class Breaker:
    """Closed while all is well. After a failure it refuses at once, and lets one call through each time that the
    pause is over."""

    def __init__(self) -> None:
        self._retry_at = 0.0  # 0: closed
        self._reason = ""

    @property
    def is_closed(self) -> bool:
        return not self._retry_at

    def admit(self) -> None:
        """Raises StoreUnavailable while it is open."""
        if not self._retry_at:
            return
        now = time.monotonic()
        if now < self._retry_at:
            raise StoreUnavailable("redis", self._reason)
        self._retry_at = now + PAUSE_SECONDS

    def failed(self, reason: str) -> None:
        self._reason = reason
        self._retry_at = time.monotonic() + PAUSE_SECONDS

    def succeeded(self) -> None:
        self._retry_at = 0.0


class Another(redis.RedisError):
    """Behind the address of a node is another Redis process by now."""


class NotMaster(redis.ConnectionError):
    """A replica knows only what it was told, perhaps not the latest."""


class Node:
    """As long as this object lives, `run_id` is the one process that its connections reach: a restart, a failover
    and a restored snapshot all end the connections, and a new one that meets somebody else makes it `is_gone`."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).hostname or ""
        self.breaker = Breaker()
        self.is_gone = False
        self.run_id: str | None = None  # None before the first connection
        self._ahead_ms: float | None = None  # its clock, of this process' monotonic one
        self.client = HeldConnections.to(url, redis_connect_func=self._meet, **OPTIONS)

    @property
    def is_well(self) -> bool:
        return not self.is_gone and self.breaker.is_closed

    def ask(self, question: Callable[[HeldConnections, int], T]) -> T:
        """`question` is put with the deadline. Raises what redis-py raises, Another too."""
        try:
            answer = question(self.client, self.deadline_ms())
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.breaker.failed(reason_of(error))
            raise
        except redis.RedisError:
            self.breaker.succeeded()  # it speaks, even if it refuses
            raise
        if not self.breaker.is_closed:
            self.breaker.succeeded()
        return answer

    def deadline_ms(self) -> int:
        """Until when a question that is put now may take effect, in ms since 1970 by its own clock; 0: for ever."""
        if self._ahead_ms is None:
            return 0
        return int(time.monotonic() * 1000 + self._ahead_ms + TIMEOUT_SECONDS * 1000)

    def set_clock(self, ms: float) -> None:
        """It is so late there now, in ms since 1970."""
        self._ahead_ms = ms - time.monotonic() * 1000

    def meet(self) -> str:
        """Who it is."""
        self.ask(lambda client, _: client.ping())
        return cast("str", self.run_id)

    def _meet(self, connection: AbstractConnection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]
        connection.send_command("INFO")  # type: ignore[no-untyped-call]
        info = _info(connection.read_response())
        if info.get("role", "master") != "master":
            raise NotMaster("a replica")
        run_id = info.get("run_id")
        if not run_id:
            raise redis.ConnectionError("it doesn't say who it is")
        if self.run_id is None:
            self.run_id = run_id
        elif self.run_id != run_id:
            self.is_gone = True
            raise Another
        if "server_time_usec" in info:
            self.set_clock(int(info["server_time_usec"]) / 1000)

    def close(self) -> None:
        self.client.close()


def reason_of(error: redis.RedisError) -> str:
    """For the log: what the store refuses with may quote what was sent, so only its first word is told."""
    if isinstance(error, NotMaster):
        return str(error)
    if isinstance(error, redis.ResponseError) and (word := NOT_NOW.search(str(error))):
        return word[0]
    cause = error.__cause__ or error.__context__
    for name in ("verify_message", "reason", "strerror"):  # of a certificate, of TLS, of the network
        if isinstance(cause, OSError) and isinstance(detail := getattr(cause, name, None), str):
            return f"{type(error).__name__}: {detail}"
    return type(error).__name__


def _info(reply: Any) -> dict[str, str]:
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
