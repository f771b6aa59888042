"""A client of one Redis process without the layers between a command and its connection.

redis-py makes, encrypts and authenticates the connections and parses the answers. Its own way of a command, through
pool, retries and measurements, costs more than all of that (docs/performance-profile.md), and none of it is wanted
here: who asks decides what may be sent again.
"""

import os
import time
from collections import deque
from typing import Any, Final

import redis

# A connection that lay idle for so long (s) may have been hung up on meanwhile.
IDLE_SECONDS: Final = 0.02


class HeldConnections(redis.Redis):
    """Commands take the connection that was given back last. There are as many as were ever needed at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle: deque[tuple[Any, float]] = deque()  # its append and pop are atomic
        self._process = os.getpid()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sent once, at most: what fails is not tried again."""
        if self._process != os.getpid():  # forked since: the connections are the parent's, and so are their answers
            self._idle, self._process = deque(), os.getpid()
        try:
            connection, since = self._idle.pop()
        except IndexError:
            connection, since = self.connection_pool.make_connection(), 0.0
        try:
            if time.monotonic() - since > IDLE_SECONDS:
                _revive(connection)
            # Connects first where it isn't: a command that failed left it so.
            connection.send_packed_command(connection.pack_command(*args), check_health=False)
            return self.parse_response(connection, args[0], **options)  # type: ignore[no-untyped-call]
        finally:
            self._idle.append((connection, time.monotonic()))

    def close(self) -> None:
        """Those in use at this moment end with this object."""
        while self._idle:
            self._idle.pop()[0].disconnect()
        super().close()


def _revive(connection: Any) -> None:
    """A Redis that was restarted since the last command costs the next one nothing: it has hung up, which reads as
    something to read before anything was asked."""
    connection.connect()  # where it isn't
    try:
        is_clean = not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        is_clean = False
    if not is_clean:
        connection.disconnect()
        connection.connect()
