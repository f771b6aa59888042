"""Redis: its nodes, its Lua scripts, and the question whether this is still the Redis we knew."""

import hashlib
import re
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from tokenserver.errors import StoreUnavailable
from tokenserver.signals import metrics, traces
from tokenserver.storage.redis_client import HeldConnections
from tokenserver.storage.redis_location import DICE, OPTIONS, location_of
from tokenserver.storage.redis_node import NOT_NOW, Another, Breaker, Node, NotMaster, reason_of

T = TypeVar("T")

# A slot that moves answers TRYAGAIN while its keys are in two places.
REDIRECTIONS: Final = 8
BETWEEN_SECONDS: Final = 0.02
REDIS: Final = {"db.system.name": "redis"}

AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.InvalidResponse,
    ClusterDownError,
    ReadOnlyError,
    OutOfMemoryError,
    NoPermissionError,
)


# The type of a value is another one; or a script stumbled over what it read.
UNREADABLE: Final = re.compile(r"\b(WRONGTYPE|user_script)\b")


class UnknownContent(StoreUnavailable):
    """At a key lies what no server of this kind wrote there: a value of another type, or one that a script can't
    read. Who has a copy in SQL may write it anew.
    """

    def __init__(self) -> None:
        super().__init__("redis", "a value there isn't as this server writes it")


class RedisReplaced(redis.RedisError):
    """Where a bucket lives is a Redis process whose content wasn't compared with SQL. Nothing was asked."""

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        super().__init__("not the verified Redis process")


class RedisStore:
    """Keys lie in `buckets`, which are one unless it is a Cluster; every question is about one of them.

    `trust` says which Redis process a bucket was compared with SQL in (`storage.feed`); nothing is read from a
    stranger before that.
    """

    def __init__(self, url: str) -> None:
        self._location = location_of(url)
        self.buckets = range(self._location.buckets)
        self._trusted: list[str | None] = [None for _ in self.buckets]
        self._homes: list[Node | None] = [None for _ in self.buckets]
        self._nodes: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._lookups = Breaker()
        self._of_thread = threading.local()

    # Buckets

    def bucket_of(self, name: str) -> int:
        """The same for the same name, in every process."""
        return zlib.crc32(name.encode()) % len(self.buckets) if len(self.buckets) > 1 else 0

    def any_bucket(self) -> int:
        """For what any of them can tell or take: the same for a thread, as long as its Redis answers."""
        if len(self.buckets) == 1:
            return 0
        bucket: int = getattr(self._of_thread, "bucket", -1)
        if bucket < 0 or not self._may_answer(bucket):
            others = DICE.sample(self.buckets, len(self.buckets))
            bucket = self._of_thread.bucket = next(filter(self._may_answer, others), others[0])
        return bucket

    def _may_answer(self, bucket: int) -> bool:
        home = self._homes[bucket]
        return home is None or home.is_well or home.is_gone

    def trust(self, bucket: int, run_id: str) -> None:
        self._trusted[bucket] = run_id

    def relocate(self, bucket: int) -> None:
        """Look again where it lives, before it is asked next."""
        self._location.forget(bucket)
        self._homes[bucket] = None

    # Questions

    def run_script(
        self, bucket: int, name: str, keys: Sequence[str], args: Sequence[Any], *, verified: bool = True
    ) -> Any:
        """Run `scripts/<name>.lua`, like `ask`: one round trip, or two when the server doesn't have it yet. Not
        `verified`: for what Redis alone knows."""
        text, digest = _script(name)
        ask = self._ask if verified else self._ask_whoever
        try:
            return ask(bucket, lambda client, _: client.send("EVALSHA", digest, len(keys), *keys, *args))[1]
        except NoScriptError:
            return ask(bucket, lambda client, _: client.send("EVAL", text, len(keys), *keys, *args))[1]

    def ask(self, bucket: int, question: Callable[[HeldConnections], T]) -> T:
        """The answer of the verified Redis. `question` sends one command, perhaps more than once.

        Raises StoreUnavailable, or RedisReplaced before anything is sent.
        """
        return self._ask(bucket, lambda client, _: question(client))[1]

    def run_in_time(self, bucket: int, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Like `run_script`, for one that must not take effect once its caller has given up: a command may be held
        up on its way, and arrive when the caller has tried again and gone on. The last of ARGV is the deadline, in
        ms since 1970 by the clock of Redis, or 0; after it the script does nothing and returns {"late", …}.
        """
        text, digest = _script(name)
        rest = (len(keys), *keys, *args)
        for _ in range(2):
            try:
                _, reply = self._ask(bucket, lambda client, by: client.send("EVALSHA", digest, *rest, by))
            except NoScriptError:
                _, reply = self._ask(bucket, lambda client, by: client.send("EVAL", text, *rest, by))
            if reply[0] != "late":
                return reply
            # It was read in time, so it is the clock of Redis that was set.
            _, (seconds, microseconds) = self.ask_unverified(bucket, lambda client: client.time())
            self._home(bucket).set_clock(seconds * 1000 + microseconds / 1000)
        raise StoreUnavailable("redis", "its clock is being set")

    def ask_unverified(self, bucket: int, question: Callable[[HeldConnections], T]) -> tuple[str, T]:
        """For comparing a Redis with SQL, and for `doctor`: whoever answers; its run id, and what it says."""
        return self._ask_whoever(bucket, lambda client, _: question(client))

    def info(self, section: str) -> list[dict[str, Any]]:
        """Of every Redis that holds a bucket."""
        found = dict(self.ask_unverified(bucket, lambda client: client.info(section)) for bucket in self.buckets)
        return list(found.values())

    @property
    def is_given_up(self) -> bool:
        """Whether one of its Redis was away a moment ago, so that it isn't asked."""
        return any(home is not None and not home.breaker.is_closed for home in self._homes)

    def close(self) -> None:
        self._location.close()
        for node in self._nodes.values():
            node.close()

    def _ask_whoever(self, bucket: int, question: Callable[[HeldConnections, int], T]) -> tuple[str, T]:
        for _ in range(REDIRECTIONS):
            try:
                return self._ask(bucket, question, verified=False)
            except RedisReplaced:
                continue
        raise StoreUnavailable("redis", "it restarts again and again")

    def _ask(
        self, bucket: int, question: Callable[[HeldConnections, int], T], *, verified: bool = True
    ) -> tuple[str, T]:
        started = time.perf_counter()
        try:
            with traces.span("redis", REDIS):
                return self._try(bucket, question, verified=verified)
        except StoreUnavailable as error:
            metrics.store_failures.count(error.store)
            raise
        finally:
            metrics.redis_seconds.observe(time.perf_counter() - started)

    def _try(self, bucket: int, question: Callable[[HeldConnections, int], T], *, verified: bool) -> tuple[str, T]:
        for attempt in range(REDIRECTIONS):
            node = self._home(bucket)
            try:
                # Who is let through after a pause finds out for all, also where the answer is not for them.
                run_id = node.run_id if node.run_id and node.is_well else node.meet()
                if verified and run_id != self._trusted[bucket]:
                    raise RedisReplaced(bucket)
                return run_id, node.ask(question)
            except Another:
                raise RedisReplaced(bucket) from None
            except MovedError as error:
                self._location.moved(bucket, error.host or node.host, error.port)
                self._homes[bucket] = None
            except AskError as error:
                return run_id, self._ask_there(error.host or node.host, error.port, question)
            except TryAgainError:
                time.sleep(BETWEEN_SECONDS * (attempt + 1))
            except RedisReplaced:
                raise
            except redis.RedisError as error:
                self._give_up(bucket, error)
                raise
        raise StoreUnavailable("redis", "a slot of the cluster is being moved")

    def _ask_there(self, host: str, port: int, question: Callable[[HeldConnections, int], T]) -> T:
        """A slot is being moved, and these keys went first. Where they went is as good as where they come from:
        MIGRATE hands over what was verified, and a state that it hasn't brought yet is no known epoch."""
        client = HeldConnections.to(self._location.url_of(host, port), **OPTIONS)
        try:
            with client:  # nobody else has it: both go over one connection
                client.send("ASKING")
                return question(client, 0)
        except (MovedError, AskError, TryAgainError) as error:
            raise StoreUnavailable("redis", "a slot of the cluster is being moved") from error
        except redis.RedisError as error:
            raise _unavailable(error) or error from error

    def _home(self, bucket: int) -> Node:
        """Raises StoreUnavailable at once while it is known to be away."""
        home = self._homes[bucket]
        if home is not None and home.is_well:
            return home
        if home is not None and not home.is_gone:
            home.breaker.admit()  # one caller goes on, to where it lives by now
            self._location.forget(bucket)
        self._lookups.admit()
        try:
            url = self._location.locate(bucket)
        except StoreUnavailable as error:
            self._lookups.failed(error.private.removeprefix("redis: "))
            raise
        self._lookups.succeeded()
        with self._lock:
            node = self._nodes.get(url)
            if node is None or node.is_gone:
                if node is not None:
                    node.close()
                node = self._nodes[url] = Node(url)
            self._homes[bucket] = node
        return node

    def _give_up(self, bucket: int, error: redis.RedisError) -> None:
        """Raises StoreUnavailable for what is no fault of the question, UnknownContent among it."""
        if isinstance(error, ReadOnlyError | NotMaster | ClusterDownError):
            self.relocate(bucket)  # the master is elsewhere by now, or nowhere
        if unavailable := _unavailable(error):
            raise unavailable from error


def _unavailable(error: redis.RedisError) -> StoreUnavailable | None:
    refused = isinstance(error, redis.ResponseError)
    if isinstance(error, AWAY) or (refused and NOT_NOW.search(str(error))):
        return StoreUnavailable("redis", reason_of(error))
    return UnknownContent() if refused and UNREADABLE.search(str(error)) else None


@cache
def _script(name: str) -> tuple[str, str]:
    """Its text and the name by which Redis remembers it."""
    text = resources.files(__package__).joinpath("scripts", f"{name}.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
