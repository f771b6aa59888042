"""Slow clients hold no thread, and a connection not for long."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live_server import LiveServer, serving

PATIENCE = 30
SLOTS = 2


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serving(workers="1", threads=str(SLOTS)) as server:
        yield server


def connect(server: LiveServer) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)


def test_hundred_bodies_that_don_t_come_leave_the_others_alone(server: LiveServer):
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(100)]
        for each in slow:
            each.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\ngrant_type=")
        server.signed_in("ann")
        assert httpx.get(f"{server.url}/readyz", trust_env=False, timeout=PATIENCE).status_code == 200
        for each in slow:
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(1)  # they are still waited for
        # One of them makes up its mind, and is answered.
        slow[0].settimeout(PATIENCE)
        slow[0].sendall(b"x" * (1000 - len("grant_type=")))
        assert slow[0].recv(100).startswith(b"HTTP/1.1 400 ")


def test_what_was_cut_off_is_not_taken_for_the_whole(server: LiveServer):
    """RFC 9112 section 8: an incomplete request. What came reads like a complete one."""
    with connect(server) as connection:
        form = b"grant_type=password&client_id=first-party&username=ann&password=x"
        head = b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        connection.sendall(head + b"Content-Length: 100\r\n\r\n" + form)
        connection.shutdown(socket.SHUT_WR)
        assert b"invalid_grant" not in connection.recv(65536)


def test_body_without_end_is_refused(server: LiveServer):
    """1 GB is announced, or sent in chunks: 413, long before."""
    with connect(server) as connection:
        connection.sendall(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 1000000000\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    with connect(server) as connection:
        connection.sendall(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65536 + b"\r\n1\r\n{\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
