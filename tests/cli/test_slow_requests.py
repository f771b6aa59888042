"""Slow clients hold threads that wait, never those that work, and not for long."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.live_server import LiveServer, serving
from tokenserver.cli.slow_requests import LIGHT_FOR_EACH, Impatience, Turns, in_slots

PATIENCE = 30
LINUX_ALONE = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel doesn't tell")
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


# The parts


class Answers:
    def __init__(self) -> None:
        self.given: list[Any] = []

    def __call__(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        del exc_info
        self.given.append((status, dict(headers)))
        return None


def environ(body: bytes, **more: Any) -> dict[str, Any]:
    usual = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": str(len(body))}
    return {"wsgi.input": io.BytesIO(body)} | usual | more


def test_no_more_than_the_slots_work_at_a_time():
    working, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        go.wait(PATIENCE)
        with lock:
            working -= 1
        start_response("200 OK", [])
        return [b""]

    answer = in_slots(application, slots=SLOTS, max_body=10)
    threads = [threading.Thread(target=answer, args=(environ(b"x"), Answers())) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: working == SLOTS)
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (most, working) == (SLOTS, 0)


def test_light_requests_wait_for_no_others_and_are_bounded_too():
    """All that ask the database wait for it; tokens are issued."""
    working, lock, go = {"/posts": 0, "/oauth/token": 0}, threading.Lock(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with lock:
            working[environ["PATH_INFO"]] += 1
        go.wait(PATIENCE)
        start_response("200 OK", [])
        return [b""]

    def ask(method: str, path: str) -> threading.Thread:
        asked = environ(b"x", REQUEST_METHOD=method, PATH_INFO=path)
        thread = threading.Thread(target=answer, args=(asked, Answers()))
        thread.start()
        return thread

    answer = in_slots(application, slots=SLOTS, max_body=10, light={"POST /oauth/token"})
    heavy = [ask("GET", "/posts") for _ in range(SLOTS * 2)]
    until(lambda: working["/posts"] == SLOTS)
    most = SLOTS * LIGHT_FOR_EACH
    light = [ask("POST", "/oauth/token") for _ in range(most * 2)]
    until(lambda: working["/oauth/token"] == most)
    assert working == {"/posts": SLOTS, "/oauth/token": most}
    go.set()
    for thread in heavy + light:
        thread.join(PATIENCE)
    assert working == {"/posts": SLOTS * 2, "/oauth/token": most * 2}


def test_who_came_first_is_served_first():
    """Whoever gives a turn back and wants the next one comes last."""
    turns, served = Turns(1), list[int]()

    def wait(number: int) -> None:
        turns.take()
        served.append(number)
        turns.give_back()

    turns.take()
    threads = [threading.Thread(target=wait, args=(number,)) for number in range(20)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(turns._waiting) == number)
    turns.give_back()
    wait(99)
    for thread in threads:
        thread.join(PATIENCE)
    assert served == [*range(20), 99]
    turns.take()  # all were given back


def test_slot_is_given_back_after_a_fault():
    def application(_environ: Any, _start_response: Any) -> list[bytes]:
        raise ValueError("broken")

    answer = in_slots(application, slots=1, max_body=10)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            answer(environ(b""), Answers())


@pytest.mark.parametrize(
    ("body", "more", "read"),
    [
        (b"hello", {}, b"hello"),
        (b"", {}, b""),
        (b"hello", {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, b"hello"),
        # one byte more than it may have, so that the application sees that it is too much
        (b"x" * 99, {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, b"x" * 11),
        (b"x" * 11, {}, b"x" * 11),
        (b"hell", {"CONTENT_LENGTH": "5"}, None),
    ],
)
def test_body_is_at_hand(body: bytes, more: dict[str, Any], read: bytes | None):
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    answers = Answers()
    found = in_slots(application, slots=1, max_body=10)(environ(body, **more), answers)
    if read is None:
        assert answers.given == [("408 Request Timeout", {"Content-Length": "0", "Connection": "close"})]
    else:
        assert list(found) == [read]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@LINUX_ALONE
def test_a_request_that_takes_too_long_ends_its_connection_and_no_other():
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ends = []
        for _ in range(4):
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=PATIENCE))
            ends.append((client, stack.enter_context(listener.accept()[0])))
        (dripping, drips), (talking, talks), (idle, idles), (_, stranger) = ends
        for client, server in ((dripping, drips), (talking, talks), (idle, idles)):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            server.recv(100)
            server.sendall(b"HTTP/1.1 204\r\n\r\n")
            client.recv(100)
        impatience = Impatience(listener.getsockname()[1], request_seconds=1.0, silent_seconds=600)
        sweeps: list[float] = []

        def sweep() -> bool:
            """The one drips, the other asks and is answered."""
            dripping.send(b"x")
            talking.send(b"GET / HTTP/1.1\r\n\r\n")
            talks.recv(100)
            talks.send(b"HTTP/1.1 204\r\n\r\n")
            talking.recv(100)
            impatience.sweep()
            sweeps.append(time.monotonic())
            drips.setblocking(False)
            with suppress(BlockingIOError):
                while drips.recv(100):
                    pass
                return True
            return False

        until(lambda: _quietly(sweep))
        assert sweeps[-1] - sweeps[0] > 1.0
        for client, server in ((talking, talks), (idle, idles)):
            client.sendall(b"still")
            assert server.recv(100) == b"still"
        assert stranger.fileno() > 0


def _quietly(sweep: Callable[[], bool]) -> bool:
    try:
        return sweep()
    except (BrokenPipeError, ConnectionResetError):
        return True


@LINUX_ALONE
def test_silence_ends_a_connection():
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=PATIENCE))
        accepted = stack.enter_context(listener.accept()[0])
        client.sendall(b"POST / HTTP/1.1\r\n")
        accepted.setblocking(False)
        other = Impatience(listener.getsockname()[1] + 1, request_seconds=600, silent_seconds=0)
        impatience = Impatience(listener.getsockname()[1], request_seconds=600, silent_seconds=0.5)
        until(lambda: accepted.recv(100, socket.MSG_PEEK))
        time.sleep(1)  # the silence itself
        other.sweep()
        assert accepted.recv(100) == b"POST / HTTP/1.1\r\n"
        with pytest.raises(BlockingIOError):
            accepted.recv(1)
        impatience.sweep()
        assert accepted.recv(1) == b""
        assert client.recv(1) == b""
