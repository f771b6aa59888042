"""An answer of Redis that comes after its caller has given up is nobody else's (redis-py CVE-2023-28858 and
CVE-2023-28859). Under load: E16 of docs/reliability.md.
"""

import time
from collections.abc import Iterator

import pytest

from tests.redis_access import raw_redis
from tests.redis_servers import Single
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.redis import RedisStore


@pytest.fixture
def own_redis() -> Iterator[Single]:
    with Single(unix=True) as server:
        yield server


def test_who_asks_next_gets_the_answer_to_its_own_question(own_redis: Single):
    store = RedisStore(own_redis.url())
    admin = raw_redis(store)
    admin.set("ts:a", "of a")
    admin.set("ts:b", "of b")

    def read(key: str) -> str:
        return str(store.ask_unverified(0, lambda client: client.get(key))[1])

    try:
        assert read("ts:a") == "of a"
        own_redis.pause()
        try:
            with pytest.raises(StoreUnavailable):
                read("ts:a")
        finally:
            own_redis.resume()
        answers: list[str] = []
        deadline = time.monotonic() + 30
        while len(answers) < 3:
            assert time.monotonic() < deadline
            try:
                answers.append(read("ts:b"))
            except StoreUnavailable:
                time.sleep(0.05)
        assert answers == ["of b"] * 3
    finally:
        store.close()
