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
from collections.abc import Sequence
from typing import Any, Final, cast

import redis
from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA, _HiredisParser

from tokenserver.storage.aside import elsewhere
from tokenserver.storage.round_trips import RoundTrips

# A connection that lay idle for so long (s) may have been hung up on meanwhile.
IDLE_SECONDS: Final = 0.02
READ_BYTES: Final = 65536
TIMEVAL: Final = struct.Struct("ll")


class Undecoded(bytes):
    """A packed command whose reply is bytes, not text."""

    __slots__ = ()


class HeldConnections(redis.Redis):
    """Commands take the connection that was given back last. There are as many as were ever needed at a time."""

    @classmethod
    def to(cls, url: str, **options: Any) -> "HeldConnections":
        return cast("HeldConnections", cls.from_url(url, **options))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: deque[tuple[Line, float]] = deque()  # its append and pop are atomic
        self._trips = RoundTrips(self._exchange)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """By itself, for what takes its time."""
        self._in_this_process()
        [reply] = elsewhere(lambda: self._exchange([pack_command((*args[0].split(), *args[1:]))]))
        reply = _raised(reply)
        options.pop("keys", None)  # for redis-py's own cache
        if args[0] not in self.response_callbacks:
            return reply
        return self.response_callbacks[args[0]](reply, **options)

    def send(self, *command: Any) -> Any:
        """The reply as it came, decoded. Together with what other threads send just now."""
        self._in_this_process()
        return _raised(self._trips.ask(pack_command(command)))

    def send_for_bytes(self, *command: Any) -> Any:
        """Like `send`, and what is text in the reply is bytes."""
        self._in_this_process()
        return _raised(self._trips.ask(Undecoded(pack_command(command))))

    def _in_this_process(self) -> None:
        if self._process != os.getpid():  # forked since: the connections are the parent's, and so are their answers
            self._begin()

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Sent once, at most: what fails is not tried again."""
        try:
            line, since = self._idle.pop()
        except IndexError:
            line, since = Line(self.connection_pool.make_connection()), 0.0
        try:
            if time.monotonic() - since > IDLE_SECONDS:
                line.revive()
            return line.exchange(commands)
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

    def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies; a refusal is one of them. Raises what redis-py raises when there are none; then the
        line is dead."""
        try:
            if self._socket is None:
                replies = self._through_connection(commands)
            else:
                replies = self.send_and_receive(self._socket, commands)
        except BaseException as error:
            self._hang_up()
            if isinstance(error, BlockingIOError):
                raise redis.TimeoutError("Timeout reading from socket") from None
            if isinstance(error, OSError):
                raise redis.ConnectionError(f"{type(error).__name__} while talking to Redis") from error
            raise
        if any([isinstance(reply, redis.ConnectionError) for reply in replies]):  # noqa: C419 - no generator for one
            self._hang_up()  # it is loading, or has too many clients
        return replies

    def _hang_up(self) -> None:
        self._socket = None
        self.connection.disconnect()

    def _through_connection(self, commands: Sequence[bytes]) -> list[Any]:
        # Connects first where it isn't: a command that failed left it so.
        self.connection.send_packed_command(commands, check_health=False)
        return [self._read(type(command) is Undecoded) for command in commands]

    def _read(self, is_undecoded: bool) -> Any:  # noqa: FBT001
        try:
            return self.connection.read_response(disable_decoding=is_undecoded)
        except redis.ResponseError as refusal:
            return refusal

    def send_and_receive(self, line: socket.socket, commands: Sequence[bytes]) -> list[Any]:
        reader = self._reader
        line.sendall(commands[0] if len(commands) == 1 else b"".join(commands))
        replies: list[Any] = []
        while True:
            while (reply := reader.gets(type(commands[len(replies)]) is not Undecoded)) is not NOT_ENOUGH_DATA:
                replies.append(reply)
                if len(replies) == len(commands):
                    return replies
            received = line.recv(READ_BYTES)
            if not received:
                raise redis.ConnectionError("Connection closed by server.")
            reader.feed(received)


def _raised(reply: Any) -> Any:
    if isinstance(reply, redis.RedisError):
        raise reply
    return reply


def _let_the_kernel_time(line: socket.socket, seconds: float) -> None:
    """Its system calls end with EAGAIN after so long."""
    limit = TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
