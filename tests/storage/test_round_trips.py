"""Threads that ask Redis at a time share round trips and nothing else: neither replies nor faults."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import redis
from hiredis import pack_command

from tests.redis_servers import Single
from tokenserver.storage.redis_client import HeldConnections, Undecoded
from tokenserver.storage.redis_location import OPTIONS
from tokenserver.storage.round_trips import again


@pytest.fixture
def own_redis():
    with Single(unix=True) as server:
        yield server


class Asked:
    """A client whose first trip goes when it is told to; the commands of each trip."""

    def __init__(self, url: str, **options: float) -> None:
        self.client = HeldConnections.to(url, **options)
        self.client.ping()
        self.go = threading.Event()
        self.trips: list[int] = []
        self._exchange = self.client._trips._exchange
        self.client._trips._exchange = self._when_told

    def _when_told(self, commands):
        self.trips.append(len(commands))
        assert self.go.wait(30)
        return self._exchange(commands)

    def waiting(self) -> int:
        following = self.client._trips._next
        return 0 if following is None else len(following.commands)


@contextmanager
def asked(url: str, commands: list[tuple[object, ...]], **options: float):
    """One command that is on its way, and others that came meanwhile, each in a thread of its own."""
    asked = Asked(url, **options)
    with ExitStack() as stack:
        stack.callback(asked.client.close)
        threads = stack.enter_context(ThreadPoolExecutor(len(commands)))
        stack.callback(asked.go.set)
        futures = [threads.submit(asked.client.send, *commands[0])]
        until(lambda: asked.trips == [1])
        futures += [threads.submit(asked.client.send, *command) for command in commands[1:]]
        until(lambda: asked.waiting() == len(commands) - 1)
        yield asked, futures


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def failures(futures: list[Future]) -> list[BaseException | None]:
    return [future.exception(30) for future in futures]


def test_who_comes_meanwhile_goes_with_the_next_and_gets_its_own_reply(own_redis, round_trips):
    words = [("ECHO", f"word {number}" * 2000) for number in range(7)]
    with asked(own_redis.url(), words) as (made, futures), round_trips() as trips:
        made.go.set()
        assert [future.result(30) for future in futures] == [word.encode() for _, word in words]
        assert (made.trips, trips.count) == ([1, 6], 2)
        assert made.client.send("ECHO", "alone") == b"alone"
        assert (made.trips, trips.count) == ([1, 6, 1], 3)


def test_a_refusal_is_its_own_alone(own_redis):
    commands = [("SET", "k", "text"), ("GET", "k"), ("INCR", "k"), ("NONSENSE",), ("GET", "k")]
    with asked(own_redis.url(), commands) as (made, futures):
        made.go.set()
        found = failures(futures)
        assert [type(each) for each in found] == [type(None)] * 2 + [redis.ResponseError] * 2 + [type(None)]
        assert [futures[n].result() for n in (1, 4)] == [b"text"] * 2
        assert made.trips == [1, 4]


def test_a_connection_that_breaks_is_told_to_each_of_them(own_redis):
    with asked(own_redis.url(), [("PING",), ("PING",), ("PING",)]) as (made, futures):
        own_redis.stop(kill=True)
        made.go.set()
        found = failures(futures)
        assert all(isinstance(each, redis.ConnectionError) for each in found)
        assert len({id(each) for each in found}) == 3
        assert made.trips == [1, 2]  # another connection might have been good


def test_each_gets_the_failure_as_it_is():
    ours, theirs = ValueError("not the store's"), redis.ResponseError("no")
    theirs.__cause__ = ours
    assert again(ours) is ours
    told = again(theirs)
    assert (type(told), told.args, told.__cause__) == (redis.ResponseError, ("no",), ours)
    assert told is not theirs
    assert isinstance(again(KeyboardInterrupt()), redis.ConnectionError)


def test_nobody_waits_for_a_second_time_out(own_redis):
    with asked(own_redis.url(), [("PING",)] * 4, socket_timeout=0.2) as (made, futures):
        own_redis.pause()
        try:
            made.go.set()
            assert [type(each) for each in failures(futures)] == [redis.TimeoutError] * 4
        finally:
            own_redis.resume()
        assert made.trips == [1]
        assert made.client.send("ECHO", "on time") == b"on time"


@pytest.mark.parametrize("tls", [False, True])
def test_each_gets_text_or_bytes_as_it_asked(tls: bool):
    """In the same trip, by the socket itself and through redis-py."""
    with Single(unix=not tls, tls=tls) as server:
        client = HeldConnections.to(server.url(), **OPTIONS)
        client.send("SET", "k", b"\xff\x00k")
        assert client.send_for_bytes("GET", "k") == b"\xff\x00k"
        assert client.send_for_bytes("MGET", "k", "nothing") == [b"\xff\x00k", None]
        ask = pack_command(("GET", "k"))
        assert client._exchange([ask, Undecoded(ask), ask]) == ["\ufffd\0k", b"\xff\x00k", "\ufffd\0k"]
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.send_for_bytes("HMGET", "k", "f")
        client.close()
