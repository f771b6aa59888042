"""A client's own web server, on the loopback interface: it keeps what it was sent and answers as it was told."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest


@dataclass
class Received:
    path: str
    content_type: str
    form: dict[str, list[str]]


class RelyingParty(ThreadingHTTPServer):
    """`status`: of its answers; `slowness`: seconds until each; `may_answer`: while it is not set, none comes."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int = 0) -> None:
        self.received: list[Received] = []
        self.status = 200
        self.slowness = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: RelyingParty

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = parse_qs(body, keep_blank_values=True)
        self.server.received.append(Received(self.path, self.headers["Content-Type"], form))
        time.sleep(self.server.slowness)
        self.server.may_answer.wait(60)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Not into the output of the tests."""


@contextmanager
def relying_party(port: int = 0) -> Iterator[RelyingParty]:
    server = RelyingParty(port)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        server.server_close()


def wait_until(there: Callable[[], Any], seconds: float = 60, every: Callable[[], object] | None = None) -> Any:
    """What `there` answers, as soon as it is something. `every`: to be done again and again meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if every is not None:
            every()
        if found := there():
            return found
        time.sleep(0.01)
    return pytest.fail(f"not within {seconds} s")
