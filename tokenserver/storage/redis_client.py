"""A client of one Redis process without the layers between a command and its connection.

redis-py makes, encrypts and authenticates the connections, and its parser is hiredis. Its own way of a command,
through pool, retries and measurements, costs more than all of that (docs/performance-profile.md), and none of it is
wanted here: who asks decides what may be sent again.
"""

import os
import socket
import struct
import time
from collections import deque
from typing import Any, Final, cast

import redis
from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA, _HiredisParser

# A connection that lay idle for so long (s) may have been hung up on meanwhile.
IDLE_SECONDS: Final = 0.02
READ_BYTES: Final = 65536
TIMEVAL: Final = struct.Struct("ll")


class HeldConnections(redis.Redis):
    """Commands take the connection that was given back last. There are as many as were ever needed at a time."""

    @classmethod
    def to(cls, url: str, **options: Any) -> "HeldConnections":
        return cast("HeldConnections", cls.from_url(url, **options))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle: deque[tuple[Line, float]] = deque()  # its append and pop are atomic
        self._process = os.getpid()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        reply = self.send(*args[0].split(), *args[1:])
        options.pop("keys", None)  # for redis-py's own cache
        if args[0] not in self.response_callbacks:
            return reply
        return self.response_callbacks[args[0]](reply, **options)

    def send(self, *command: Any) -> Any:
        """The reply as it came, decoded. Sent once, at most: what fails is not tried again."""
        if self._process != os.getpid():  # forked since: the connections are the parent's, and so are their answers
            self._idle, self._process = deque(), os.getpid()
        try:
            line, since = self._idle.pop()
        except IndexError:
            line, since = Line(self.connection_pool.make_connection()), 0.0
        try:
            if time.monotonic() - since > IDLE_SECONDS:
                line.revive()
            return line.exchange(command)
        finally:
            self._idle.append((line, time.monotonic()))

    def close(self) -> None:
        """Those in use at this moment end with this object."""
        while self._idle:
            self._idle.pop()[0].connection.disconnect()
        super().close()


class Line:
    """A connection of redis-py's, whose socket is used directly.

    With a time-out of Python's, each sending and each reading is two system calls, and lets go of the interpreter
    lock twice; other threads wake up for that. The kernel's time-outs cost nothing.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket: socket.socket | None = None  # None: not connected, or encrypted
        self._reader: Any = None

    def revive(self) -> None:
        """A Redis that was restarted since the last command costs the next one nothing: it has hung up, which reads
        as something to read before anything was asked."""
        if self._socket is None or not self._is_quiet(self._socket):
            self._connect()

    @staticmethod
    def _is_quiet(line: socket.socket) -> bool:
        try:
            line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _connect(self) -> None:
        self._socket = None
        connection = self.connection
        connection.connect()  # where it isn't
        try:
            is_clean = not connection.can_read()
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            is_clean = False
        if not is_clean:
            connection.disconnect()
            connection.connect()
        line, parser = connection._sock, connection._parser  # noqa: SLF001 - there is no other way to them
        if type(line) is socket.socket and isinstance(parser, _HiredisParser):
            _let_the_kernel_time(line, connection.socket_timeout)
            self._socket, self._reader = line, parser._reader  # noqa: SLF001

    def exchange(self, command: tuple[Any, ...]) -> Any:
        """The reply, decoded. Raises what redis-py raises; then the line is dead, unless Redis answered."""
        if self._socket is None:
            # Connects first where it isn't: a command that failed left it so.
            self.connection.send_packed_command(self.connection.pack_command(*command), check_health=False)
            return self.connection.read_response()
        try:
            reply = self.send_and_receive(self._socket, pack_command(command))
        except BaseException as error:
            self._socket = None
            self.connection.disconnect()
            if isinstance(error, BlockingIOError):
                raise redis.TimeoutError("Timeout reading from socket") from None
            if isinstance(error, OSError):
                raise redis.ConnectionError(f"{type(error).__name__} while talking to Redis") from error
            raise
        if isinstance(reply, redis.RedisError):
            if isinstance(reply, redis.ConnectionError):
                self._socket = None
                self.connection.disconnect()
            raise reply
        return reply

    def send_and_receive(self, line: socket.socket, packed: bytes) -> Any:
        line.sendall(packed)
        while (reply := self._reader.gets()) is NOT_ENOUGH_DATA:
            received = line.recv(READ_BYTES)
            if not received:
                raise redis.ConnectionError("Connection closed by server.")
            self._reader.feed(received)
        return reply


def _let_the_kernel_time(line: socket.socket, seconds: float) -> None:
    """Its system calls end with EAGAIN after so long."""
    limit = TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
