"""What is carried out of a stream goes, and nothing else."""

import pytest

from tests.redis_access import raw_redis
from tokenserver.storage import stream
from tokenserver.storage.stream import carry

KEY = "ts:{0}:some"


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def redis(rooms):
    rooms.feed.sync(0)
    return raw_redis(rooms.store)


def texts(items):
    return [fields["e"] for _, fields in items]


def left(redis):
    return texts(redis.xrange(KEY))


def test_what_is_appended_meanwhile_waits(rooms, redis):
    for text in "abc":
        redis.xadd(KEY, {"e": text})
    got = []

    def work(items):
        got.extend(texts(items))
        redis.xadd(KEY, {"e": "d"})

    assert carry(rooms.feed, 0, KEY, 2, work) == 2
    assert (got, left(redis)) == (["a", "b"], ["c", "d"])
    assert carry(rooms.feed, 0, KEY, 2, lambda items: got.extend(texts(items))) == 2
    assert carry(rooms.feed, 0, KEY, 2, lambda _: pytest.fail("there is nothing")) == 0
    assert (got, left(redis)) == (["a", "b", "c", "d"], [])


def test_what_could_not_be_carried_stays(rooms, redis):
    redis.xadd(KEY, {"e": "a"})

    def work(_):
        raise KeyError

    with pytest.raises(KeyError):
        carry(rooms.feed, 0, KEY, 2, work)
    assert left(redis) == ["a"]


def test_the_last_id_of_a_millisecond(rooms, redis):
    for item_id in ("5-18446744073709551614", "5-18446744073709551615", "6-0", "6-1"):
        redis.xadd(KEY, {"e": item_id}, id=item_id)
    for rest in (3, 2, 1, 0):
        assert carry(rooms.feed, 0, KEY, 1, lambda _: None) == 1
        assert len(left(redis)) == rest


def test_what_came_after():
    items = [("9-1", {}), ("9-10", {}), ("10-0", {}), ("10-2", {})]
    assert stream.after("0-0", items) == items
    assert stream.after("9-1", items) == items[1:]
    assert stream.after("9-9", items) == items[1:]
    assert stream.after("10-1", items) == items[3:]
    assert stream.after("10-2", items) == []
