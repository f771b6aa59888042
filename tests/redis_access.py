"""Redis as a stranger meets it, past the server's own store: for tests that damage it or look into it."""

from functools import cache
from typing import Any

import redis
from redis.cluster import ClusterNode, RedisCluster

from tokenserver.storage.feed import state_key
from tokenserver.storage.redis import RedisStore
from tokenserver.storage.redis_location import Cluster


def raw_redis(store: RedisStore) -> Any:
    """A client of wherever the store's keys are now; several masters act as one."""
    location = store._location
    if isinstance(location, Cluster):
        return _cluster(tuple(location._parts.hosts))
    return _client(location.locate(0))


def forget_states(store: RedisStore) -> None:
    """Every bucket has to be compared with SQL again, and still holds all that it held."""
    for bucket in store.buckets:
        raw_redis(store).delete(state_key(bucket))


@cache
def _client(url: str) -> Any:
    return redis.Redis.from_url(url, decode_responses=True)


@cache
def _cluster(hosts: tuple[tuple[str, int], ...]) -> Any:
    return RedisCluster(startup_nodes=[ClusterNode(*each) for each in hosts], decode_responses=True)
