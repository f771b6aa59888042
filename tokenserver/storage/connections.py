"""Connections to an SQL server: no wait is endless, and while it is away one try at a time asks whether it is back.

The server itself ends a statement or a wait for a lock that takes too long, and the kernel ends a connection whose
other side is gone. Neither helps when the server's processes stand still while its kernel goes on answering: libpq
has no time-out for that. So a thread of this process looks twice a second for statements that are overdue, and
shuts their sockets down. It costs a statement nothing but the note of when it began (ADR 0015).
"""

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from psycopg2 import Error, extensions
from sqlalchemy import Dialect, Engine, event

from tokenserver.errors import StoreUnavailable

logger = logging.getLogger("tokenserver.sql")

CONNECT_SECONDS: Final = 3  # for each address
PING_SECONDS: Final = 2.0  # for the question whether a pooled connection lives
GRACE_SECONDS: Final = 2.0  # beyond the server's own limit, for its answer to arrive
PAUSE_SECONDS: Final = 0.5  # between two tries to connect while the server is away
LOOK_SECONDS: Final = 0.5
PING: Final = "SELECT 1"


def connect_arguments(url: str, seconds: int) -> dict[str, Any]:
    """What libpq is told: nothing that the URL says itself. `seconds`: for a statement; half of it for a lock."""
    given = dict(parse_qsl(urlsplit(url).query))
    limits = {
        "statement_timeout": f"{seconds}s",
        "lock_timeout": f"{seconds * 500}ms",
        # Of a process that stopped in the midst of a transaction, whose locks others wait for.
        "idle_in_transaction_session_timeout": "60s",
    }
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "tokenserver",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    arguments = {name: value for name, value in arguments.items() if name not in given}
    said = given.get("options", "")
    ours = [f"-c {name}={value}" for name, value in limits.items() if name not in said]
    return arguments | {"options": " ".join([*ours, said]).strip(), "connection_factory": WatchedConnection}


class Gate:
    """Closed by a failure to connect. Then one connection at a time is tried, the others are refused at once, until
    a try succeeds. Connections that are there aren't asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cause: str | None = None
        self._next_try = 0.0
        self._trying = False

    @property
    def is_closed(self) -> bool:
        return self._cause is not None

    def pass_through(self, connect: Callable[[], Any]) -> Any:
        """Raises StoreUnavailable without a try while somebody else tries, or just did."""
        is_probe = self._enter()
        try:
            connection = connect()
        except Error as error:
            self.close(str(error))
            raise
        else:
            self._open()
            return connection
        finally:
            if is_probe:
                self._trying = False

    def close(self, cause: str) -> None:
        with self._lock:
            if self._cause is None:
                logger.info("the database is away: %s", " ".join(cause.split()))
            self._cause = cause
            self._next_try = time.monotonic() + PAUSE_SECONDS

    def _enter(self) -> bool:
        with self._lock:
            if self._cause is None:
                return False
            if self._trying or time.monotonic() < self._next_try:
                raise StoreUnavailable("sql", " ".join(self._cause.split()))
            self._trying = True
            return True

    def _open(self) -> None:
        with self._lock:
            if self._cause is not None:
                logger.info("the database is back")
            self._cause = None


class WatchedCursor(extensions.cursor):
    connection: "WatchedConnection"

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name
        connection = self.connection
        connection.begin_wait(PING_SECONDS if query == PING else None)
        try:
            super().execute(query, vars)
        finally:
            connection.end_wait()

    def executemany(self, query: Any, vars_list: Any) -> None:
        self.connection.begin_wait()
        try:
            super().executemany(query, vars_list)
        finally:
            self.connection.end_wait()


class WatchedNamedCursor(WatchedCursor):
    """Its rows stay with the server until they are fetched."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        self.connection.begin_wait()
        try:
            return super().fetchall()
        finally:
            self.connection.end_wait()

    def close(self) -> None:
        self.connection.begin_wait()
        try:
            super().close()
        finally:
            self.connection.end_wait()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        self.connection.begin_wait()
        try:
            return super().fetchmany(self.arraysize if size is None else size)
        finally:
            self.connection.end_wait()


class WatchedConnection(extensions.connection):
    """Knows until when its server must have answered. `patience`: seconds; None waits for ever."""

    patience: float | None = None
    gate: Gate | None = None
    _deadline: float | None = None
    _socket: int | None = None

    def watch(self, gate: Gate, patience: float | None) -> None:
        self.gate, self.patience = gate, patience
        self._lock = threading.Lock()
        # A descriptor of our own: libpq may close its, and the number may become that of another socket.
        self._socket = os.dup(self.fileno())
        watchdog.add(self)

    def begin_wait(self, seconds: float | None = None) -> None:
        if self.patience is not None:
            self._deadline = time.monotonic() + (seconds or self.patience)

    def end_wait(self) -> None:
        if self._deadline is not None:
            with self._lock:
                self._deadline = None

    def cut_if_overdue(self) -> None:
        if self._socket is None:
            return
        with self._lock:  # whoever waits can't go on to the next statement meanwhile
            if self._deadline is None or self._deadline > time.monotonic():
                return
            self._deadline = None
            with suppress(OSError), socket.socket(fileno=os.dup(self._socket)) as own:
                own.shutdown(socket.SHUT_RDWR)
        if self.gate:
            self.gate.close("no answer to a statement in time: the connection is cut")

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        named = args[0] if args else kwargs.get("name")
        kwargs.setdefault("cursor_factory", WatchedNamedCursor if named else WatchedCursor)
        return super().cursor(*args, **kwargs)

    def commit(self) -> None:
        self.begin_wait()
        try:
            super().commit()
        finally:
            self.end_wait()

    def rollback(self) -> None:
        self.begin_wait()
        try:
            super().rollback()
        finally:
            self.end_wait()

    def close(self) -> None:
        super().close()
        self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        number, self._socket = self._socket, None
        if number is not None:
            os.close(number)


class Watchdog:
    """One thread for all connections of the process, from the first one on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[WatchedConnection] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def add(self, connection: WatchedConnection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="sql watchdog", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                connection.cut_if_overdue()
            del connections


watchdog = Watchdog()


def guard(engine: Engine, patience: float | None) -> Gate:
    """All connections that the engine makes from now on. `patience`: seconds until a statement is given up."""
    gate = Gate()

    def connect(dialect: Dialect, _record: object, args: list[Any], arguments: dict[str, Any]) -> Any:
        connection = gate.pass_through(lambda: dialect.connect(*args, **arguments))
        if isinstance(connection, WatchedConnection):
            connection.watch(gate, patience)
        return connection

    event.listen(engine, "do_connect", connect)
    return gate
