"""Loopback listeners of every kind that a client could register."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.certificates import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@dataclass
class Listener:
    """`answer`: what it says to each request, by bytes or by a function of the connection.

    `connections`: how often somebody knocked. `requests`: what was heard then. `server_names`: of TLS handshakes.
    """

    socket: socket.socket
    answer: bytes | Callable[[socket.socket], None] = b""
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            if self.tls is not None:
                self.tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
                connection = self.tls.wrap_socket(connection, server_side=True)
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += connection.recv(65536) or b"\r\n\r\n"
            head, _, body = heard.partition(b"\r\n\r\n")
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
            while len(body) < length:
                body += connection.recv(65536)
            self.requests.append(head + b"\r\n\r\n" + body)
            if callable(self.answer):
                self.answer(connection)
            else:
                connection.sendall(self.answer)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(answer: Any = b"", *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Listener:
        bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        bound.bind((address, 0))
        bound.listen(50)
        listener = Listener(bound, answer, tls)
        made.append(listener)
        threading.Thread(target=listener.serve, daemon=True).start()
        return listener

    yield make
    for listener in made:
        with contextlib.suppress(OSError):
            listener.socket.shutdown(socket.SHUT_RDWR)
        listener.socket.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What a name server of ours answers: for each name the addresses, lookup by lookup; the last answer stays."""
    answers: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        known = answers[host]
        addresses = known.pop(0) if len(known) > 1 else known[0]
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (address, port or 0))
            for kind, address in zip(kinds, addresses, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers
