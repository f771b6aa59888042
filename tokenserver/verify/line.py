"""The connection over which a thread waits for an answer: another thread may cut it, and so end the wait."""

import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from threading import RLock
from typing import Any
from urllib.request import AbstractHTTPHandler, HTTPHandler, HTTPSHandler, Request


class Line:
    """Holds one connection at a time. Once cut it stays so, and holds none."""

    def __init__(self) -> None:
        self._lock = RLock()  # whatever collects garbage may cut it, also in the thread that is here
        self._held: socket.socket | None = None
        self._is_cut = False

    def hold(self, connected: socket.socket) -> None:
        """ConnectionAbortedError when it was cut."""
        # A descriptor of its own: the other one may be closed, and be somebody else's then, when this is cut.
        own = socket.socket(fileno=socket.dup(connected.fileno()))
        with self._lock:
            self.let_go()
            self._held = own
            if self._is_cut:
                self.let_go()
                raise ConnectionAbortedError("cut")

    def let_go(self) -> None:
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            if self._held is not None:
                with suppress(OSError):  # the other side was faster
                    self._held.shutdown(socket.SHUT_RDWR)

    def handlers(self, patience: float) -> tuple[HTTPHandler, HTTPSHandler]:
        """Whose connections it holds. `patience`: seconds that an answer may take, once there is a connection."""
        return _HTTP(self, patience), _HTTPS(self, patience)


class _OnLine(AbstractHTTPHandler):
    def __init__(self, line: Line, patience: float) -> None:
        super().__init__()
        self._line = line
        self._patience = patience

    def do_open(self, http_class: Callable[..., HTTPConnection], req: Request, **options: Any) -> HTTPResponse:
        def held(host: str, **more: Any) -> HTTPConnection:
            connection = http_class(host, **more)
            connect = connection.connect

            def connect_and_hold() -> None:
                connect()
                self._line.hold(connection.sock)
                connection.sock.settimeout(self._patience)

            connection.connect = connect_and_hold  # type: ignore[method-assign]
            return connection

        return super().do_open(held, req, **options)


class _HTTP(_OnLine, HTTPHandler):
    pass


class _HTTPS(_OnLine, HTTPSHandler):
    pass
