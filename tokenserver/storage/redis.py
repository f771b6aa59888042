"""Redis: one client per process, its Lua scripts, and the question whether this is still the Redis we knew."""

import re
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from tokenserver.errors import ConfigurationError, StoreUnavailable

T = TypeVar("T")
TIMEOUT_SECONDS: Final = 1.0

# Loading, a replica, memory full, persistence broken, not allowed in.
AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)

NOT_NOW: Final = re.compile(
    r"\b(BUSY|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM|NOREPLICAS|OOM|READONLY|WRONGPASS)\b"
)


class RedisReplaced(redis.RedisError):
    """A new connection reached a server process that isn't the one whose content was verified."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__("not the verified Redis process")


class RedisStore:
    """`trusted_run_id`: the Redis process whose content was last compared with SQL (see `storage.feed`).

    A restart, a failover and a restored snapshot all end the connections. Each new connection therefore asks
    the server who it is, and nothing is read from a stranger before `storage.feed` has compared it with SQL.
    """

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme in {"redis+sentinel", "redis+cluster"}:
            raise ConfigurationError(
                "TOKENSERVER_REDIS_URL: Sentinel and Cluster are not supported by this version"
            )
        self.trusted_run_id: str | None = None
        options: dict[str, Any] = {
            "decode_responses": True,
            "protocol": 2,
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            # A script that rotates must not be sent twice behind our back; callers decide what may be retried.
            "retry": Retry(NoBackoff(), 0),
        }
        self.client = redis.Redis.from_url(url, redis_connect_func=self._meet, **options)
        self.unverified = redis.Redis.from_url(url, max_connections=4, **options)
        self._scripts: dict[str, Any] = {}

    def _meet(self, connection: AbstractConnection) -> None:
        connection.on_connect()  # type: ignore[no-untyped-call]
        connection.send_command("INFO", "server")  # type: ignore[no-untyped-call]
        run_id = _info(connection.read_response())["run_id"]
        if run_id != self.trusted_run_id:
            raise RedisReplaced(run_id)

    def run_script(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Run `scripts/<name>.lua`: one round trip, or two when the server doesn't have the script yet."""
        script = self._scripts.get(name)
        if script is None:
            text = resources.files(__package__).joinpath("scripts", f"{name}.lua").read_text("utf-8")
            script = self._scripts[name] = self.client.register_script(text)
        return self.ask(lambda client: script(keys=list(keys), args=list(args), client=client))

    def ask(self, question: Callable[["redis.Redis"], T]) -> T:
        """The answer of the verified Redis. Raises StoreUnavailable, or RedisReplaced before anything is sent."""
        return self._ask(self.client, question)

    def ask_unverified(self, question: Callable[["redis.Redis"], T]) -> T:
        """For comparing a Redis with SQL, and for `doctor`: whoever answers."""
        return self._ask(self.unverified, question)

    @staticmethod
    def _ask(client: "redis.Redis", question: Callable[["redis.Redis"], T]) -> T:
        try:
            return question(client)
        except AWAY as error:
            raise StoreUnavailable("redis", type(error).__name__) from error
        except redis.ResponseError as error:
            # A script wraps the word in a sentence of its own.
            word = NOT_NOW.search(str(error))
            if word:
                raise StoreUnavailable("redis", word[0]) from error
            raise

    def run_id(self) -> str:
        """Who answers now."""
        return cast("str", self.info("server")["run_id"])

    def info(self, section: str) -> dict[str, Any]:
        return self.ask_unverified(lambda client: client.info(section))

    def close(self) -> None:
        self.client.close()
        self.unverified.close()


def _info(reply: str | bytes) -> dict[str, str]:
    text = reply.decode() if isinstance(reply, bytes) else reply
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
