"""Where a bucket of keys lives: one Redis, the master that Sentinels name, or a master of a Cluster.

All keys of a bucket share a hash tag, so they share a slot and one script may touch them together. A Cluster has
several buckets, so that its masters share the work; elsewhere there is one.
"""

import os
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError
from redis.sentinel import Sentinel as Sentinels

from tokenserver.errors import ConfigurationError, StoreUnavailable

TIMEOUT_SECONDS: Final = 1.0
CLUSTER_BUCKETS: Final = 16
# Not the one that a program may have seeded.
DICE: Final = random.SystemRandom()
TLS_FILES: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

# Callers decide what may be sent again; a script that rotates must not be, behind their back.
OPTIONS: Final[dict[str, Any]] = {
    "decode_responses": True,
    # What somebody else wrote there is no fault of ours: it is a text that nothing here has written.
    "encoding_errors": "replace",
    "protocol": 2,
    "socket_timeout": TIMEOUT_SECONDS,
    "socket_connect_timeout": TIMEOUT_SECONDS,
    "retry": Retry(NoBackoff(), 0),
}


class Location(ABC):
    """`locate` gives the URL of the one Redis that a bucket lives in now."""

    buckets = 1

    @abstractmethod
    def locate(self, bucket: int) -> str:
        """Raises StoreUnavailable when nobody can tell."""

    def url_of(self, host: str, port: int) -> str:
        """Of a node that a cluster speaks of."""
        raise StoreUnavailable("redis", f"belongs to a cluster, with {host}:{port}; use redis+cluster://")

    def moved(self, bucket: int, host: str, port: int) -> None:  # noqa: ARG002 - only a cluster has several places
        """A node of the cluster says where a bucket lives."""
        self.url_of(host, port)

    def forget(self, bucket: int) -> None:  # noqa: B027 - most have nothing to forget
        """Look again before the next answer."""

    def close(self) -> None:  # noqa: B027 - most hold nothing open
        """End the connections that it holds."""


class Single(Location):
    """`redis://`, `rediss://`, `unix://`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def locate(self, bucket: int) -> str:
        del bucket
        return self._url


class Sentinel(Location):
    """`redis+sentinel://[user:password@]host:port,host:port/service[/db]`. User and password are those of Redis;
    those of the Sentinels are the query parameters `sentinel_username`, `sentinel_password`."""

    def __init__(self, url: str) -> None:
        self._parts = _Parts.of(url)
        path = self._parts.path.strip("/").split("/")
        if not path[0] or len(path) > 2:
            raise ConfigurationError(
                "TOKENSERVER_REDIS_URL: name the service after the Sentinels, as in "
                "redis+sentinel://host:26379,host:26379/service/0"
            )
        self._service, self._database = path[0], path[1] if len(path) > 1 else "0"
        if not self._database.isdecimal():
            raise ConfigurationError("TOKENSERVER_REDIS_URL: after the service comes the number of a database")
        query = dict(self._parts.query)
        own = {
            name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query
        }
        tls = {name: value for name, value in query.items() if name.startswith("ssl_")}
        self._query = query
        self._sentinels = Sentinels(  # type: ignore[no-untyped-call]
            self._parts.hosts,
            sentinel_kwargs={**OPTIONS, **own, **({"ssl": True, **tls} if self._parts.tls else {})},
        )

    def locate(self, bucket: int) -> str:
        del bucket
        try:
            host, port = self._sentinels.discover_master(self._service)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            # redis-py writes every setting of each connection into its message; the kinds of faults are in it too.
            kinds = ", ".join(sorted(set(re.findall(r"\b[A-Z]\w*Error\b", str(error)))))
            fault = f"the Sentinels name no master of {self._service}" + (f": {kinds}" if kinds else "")
            raise StoreUnavailable("redis", fault) from None
        except redis.RedisError as error:
            raise StoreUnavailable("redis", f"Sentinel: {type(error).__name__}") from error
        return self._parts.node(host, port, self._query, self._database)

    def close(self) -> None:
        for sentinel in self._sentinels.sentinels:
            sentinel.close()


class Cluster(Location):
    """`redis+cluster://[user:password@]host:port,host:port`: some of its nodes, who tell of the others."""

    buckets = CLUSTER_BUCKETS

    def __init__(self, url: str) -> None:
        self._parts = _Parts.of(url)
        if self._parts.path.strip("/") not in {"", "0"}:
            raise ConfigurationError("TOKENSERVER_REDIS_URL: a cluster has one database, 0")
        self._known: list[tuple[str, int]] = list(self._parts.hosts)
        self._homes: dict[int, tuple[str, int]] = {}

    def locate(self, bucket: int) -> str:
        if bucket not in self._homes:
            self._look()
        home = self._homes.get(bucket)
        if home is None:
            raise StoreUnavailable("redis", "the cluster doesn't serve all its slots")
        return self.url_of(*home)

    def url_of(self, host: str, port: int) -> str:
        return self._parts.node(host, port, self._parts.query, "0")

    def moved(self, bucket: int, host: str, port: int) -> None:
        self._homes[bucket] = (host, port)

    def forget(self, bucket: int) -> None:
        self._homes.pop(bucket, None)

    def _look(self) -> None:
        """Ask nodes, in no order, until one answers."""
        reason = "no node"
        for host, port in DICE.sample(self._known, len(self._known)):
            client = redis.Redis.from_url(self.url_of(host, port), **OPTIONS)
            try:
                with client:
                    ranges = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except redis.RedisError as error:
                reason = type(error).__name__
                continue
            self._adopt(ranges, host)
            return
        raise StoreUnavailable("redis", f"Cluster: {reason}")

    def _adopt(self, ranges: Any, asked: str) -> None:
        """`ranges`: first and last slot, the master, its replicas; a node by address, port, id."""
        found = dict.fromkeys(self._parts.hosts)
        homes: dict[int, tuple[str, int]] = {}
        for first, last, master, *replicas in ranges:
            # An empty address stands for the one that was asked.
            found |= {(node[0] or asked, int(node[1])): None for node in (master, *replicas)}
            homes |= {
                bucket: (master[0] or asked, int(master[1]))
                for bucket in range(self.buckets)
                if first <= key_slot(b"{%d}" % bucket) <= last
            }
        self._known, self._homes = list(found), homes


def location_of(url: str) -> Location:
    """Raises ConfigurationError for a URL that can't be meant."""
    parts = urlsplit(url)
    scheme = parts.scheme
    _require_usable(scheme, dict(parse_qsl(parts.query)))
    if scheme.endswith("+sentinel"):
        return Sentinel(url)
    if scheme.endswith("+cluster"):
        return Cluster(url)
    if scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ConfigurationError("TOKENSERVER_REDIS_URL: the path must be the number of a database, such as /0")
    return Single(url)


def _require_usable(scheme: str, query: dict[str, str]) -> None:
    known = set()
    if scheme.startswith("rediss"):
        known |= {*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_password"}
    if scheme.endswith("+sentinel"):
        known |= {"sentinel_username", "sentinel_password"}
    if "+" not in scheme:
        known |= {"db", "password", "username"}
    for name, value in query.items():
        if name not in known:
            raise ConfigurationError(f"TOKENSERVER_REDIS_URL: {scheme}:// has no parameter of this name: {name}")
        if name in TLS_FILES and not os.access(value, os.R_OK):
            raise ConfigurationError(f"TOKENSERVER_REDIS_URL: {name}: there is no such file that can be read")


@dataclass(frozen=True)
class _Parts:
    tls: bool
    userinfo: str
    hosts: Sequence[tuple[str, int]]
    path: str
    query: dict[str, str]

    @classmethod
    def of(cls, url: str) -> "_Parts":
        parts = urlsplit(url)
        userinfo, at, hosts = parts.netloc.rpartition("@")
        try:
            pairs = [_host_and_port(each) for each in hosts.split(",")]
        except ValueError:
            raise ConfigurationError("TOKENSERVER_REDIS_URL: the hosts must be host:port,host:port") from None
        return cls(
            tls=parts.scheme.startswith("rediss"),
            userinfo=userinfo + at,
            hosts=pairs,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query)),
        )

    def node(self, host: str, port: int, query: dict[str, str], database: str) -> str:
        scheme = "rediss" if self.tls else "redis"
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{self.userinfo}{shown}:{port}/{database}" + (f"?{urlencode(query)}" if query else "")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError(text)
    return host.strip("[]"), int(port)
