"""Redis as a stranger meets it, past the server's own store: for tests that damage it or look into it."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests import redis_servers
from tokenserver.storage.feed import state_key
from tokenserver.storage.redis import RedisStore
from tokenserver.storage.redis_location import Cluster


def raw_redis(store: RedisStore) -> Any:
    """An administrator's client of wherever the store's keys are now; several masters act as one."""
    location = store._location
    url = (
        location._parts.node(*location._parts.hosts[0], {}, "0")
        if isinstance(location, Cluster)
        else location.locate(0)
    )
    servers = redis_servers.serving(url)
    assert servers is not None, "not a Redis of the tests"
    parts = urlsplit(url)
    database = parse_qs(parts.query)["db"][0] if parts.scheme == "unix" else parts.path.strip("/")
    return servers.admin(int(database))


def forget_states(store: RedisStore) -> None:
    """Every bucket has to be compared with SQL again, and still holds all that it held."""
    for bucket in store.buckets:
        raw_redis(store).delete(state_key(bucket))
