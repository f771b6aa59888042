"""Clients that send slowly, or stop in mid-sentence: they hold a thread that does nothing else, and not for long.

The server's threads read a request's body before they take one of the slots that the application has, so that those
who wait for bodies leave the others alone. There are as many threads as connections. A connection whose request
doesn't come to an end is hung up on.
"""

import contextlib
import io
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SWEEP_SECONDS: Final = 2.0
LIGHT_FOR_EACH: Final = 4
DESCRIPTORS: Final = "/proc/self/fd"
# Of `struct tcp_info`: state, then eight counters of one byte and nine of four until the times in ms since data was
# last sent and received.
TCP_INFO: Final = struct.Struct("B43xI4xI")
ESTABLISHED: Final = 1
# Between two clocks: what was sent so shortly after a sweep may not be seen by the next one.
JITTER_SECONDS: Final = 0.5


def in_slots(
    application: "WSGIApplication", *, slots: int, max_body: int, light: Collection[str] = ()
) -> "WSGIApplication":
    """`slots`: how many requests the application answers at a time, each with its whole body at hand. Of a body
    past `max_body` bytes it gets one byte more, or none when the length was announced: it will refuse both.

    `light`: endpoints, as "GET /path", that seldom ask SQL. They have slots of their own, and more of them: nobody
    waits for a token because others wait for the database, and who asks Redis at the same moment shares the way.
    """
    turns, turns_of_light = Turns(slots), Turns(slots * LIGHT_FOR_EACH)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _receive(environ, max_body):
            # RFC 9110 section 15.5.9, to whoever is still there.
            start_response("408 Request Timeout", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        mine = turns_of_light if f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}" in light else turns
        mine.take()
        try:
            return application(environ, start_response)
        finally:
            mine.give_back()

    return answer


class Turns:
    """A semaphore of `count` that serves who came first. `threading`'s, and a queue, let the newest pass whoever
    is about to wake up, and some wait several times as long as the others."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def give_back(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            first = self._waiting.popleft()
        first.release()  # it has the turn, awake or not


def _receive(environ: "WSGIEnvironment", max_body: int) -> bool:
    """Puts the body in the place of the stream. False if it ended before its announced length (RFC 9112 section 8:
    such a request is no request)."""
    announced = int(environ.get("CONTENT_LENGTH") or -1)
    if announced > max_body or (announced <= 0 and "HTTP_TRANSFER_ENCODING" not in environ):
        return True
    body = environ["wsgi.input"].read(max_body + 1)
    environ["wsgi.input"] = io.BytesIO(body)
    return announced <= len(body)


class Connection(NamedTuple):
    """`sent`, `received`: seconds since data last was; since its start where none was sent."""

    inode: int
    sent: float
    received: float


class Impatience:
    """Hangs up on connections of `port` in this process whose request takes longer than `request_seconds` from its
    first byte to the first byte of its answer, and on those on which nothing happens for `silent_seconds`."""

    def __init__(self, port: int, *, request_seconds: float, silent_seconds: float) -> None:
        self._port = port
        self._request_seconds = request_seconds
        self._silent_seconds = silent_seconds
        self._begun: dict[int, float] = {}

    def start(self) -> None:
        """Where the kernel tells: elsewhere the balancer is alone with this."""
        if Path(DESCRIPTORS).is_dir() and hasattr(socket, "TCP_INFO"):
            threading.Thread(target=self._watch, name="slow requests", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        begun: dict[int, float] = {}
        for descriptor in os.listdir(DESCRIPTORS):  # noqa: PTH208 - names alone
            with contextlib.suppress(OSError):
                self._look_at(int(descriptor), begun)
        self._begun = begun

    def _look_at(self, descriptor: int, begun: dict[int, float]) -> None:
        if not os.readlink(f"{DESCRIPTORS}/{descriptor}").startswith("socket:"):  # noqa: PTH115 - a third of the time
            return
        # No copy of it: if it became a file just now, closing one would let go of the locks that SQLite holds.
        looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
        try:
            connection = self._connection(looked_at)
            if connection is not None and self._is_enough(connection, begun):
                looked_at.shutdown(socket.SHUT_RDWR)
        finally:
            looked_at.detach()

    def _connection(self, looked_at: socket.socket) -> Connection | None:
        name = looked_at.getsockname()
        if not isinstance(name, tuple) or name[1] != self._port:
            return None
        state, sent, received = TCP_INFO.unpack(
            looked_at.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
        )
        if state != ESTABLISHED:
            return None
        return Connection(os.fstat(looked_at.fileno()).st_ino, sent / 1000, received / 1000)

    def _is_enough(self, connection: Connection, begun: dict[int, float]) -> bool:
        if min(connection.sent, connection.received) > self._silent_seconds:
            return True
        if connection.received >= connection.sent:  # what came was answered
            return False
        now = time.monotonic()
        since = self._begun.get(connection.inode, now)
        if connection.sent < now - since - JITTER_SECONDS:  # and so was what came before
            since = now
        begun[connection.inode] = since
        return now - since > self._request_seconds
