"""Rate limits: exact under parallel use, one bucket per subscriber, nothing taken when anything is full."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.redis_access import raw_redis
from tokenserver.errors import TooManyRequests
from tokenserver.storage.redis import RedisStore
from tokenserver.web.rate_limit import Limit, RateLimits, network_of

SLOW = Limit("slow", burst=5, interval_ms=60_000)
WIDE = Limit("wide", burst=50, interval_ms=60_000)


@pytest.fixture
def limits(redis_url):
    store = RedisStore(redis_url)
    yield RateLimits(store, enabled=True)
    store.close()


def allowed(limits, *subjects):
    try:
        limits.take(*subjects)
    except TooManyRequests:
        return False
    return True


def test_the_burst_then_one_per_interval(limits):
    assert [allowed(limits, (SLOW, "a")) for _ in range(6)] == [True] * 5 + [False]
    with pytest.raises(TooManyRequests) as refusal:
        limits.take((SLOW, "a"))
    assert 1 <= refusal.value.retry_after <= 60


def test_it_is_exact_under_parallel_guesses(limits):
    """CVE-2023-47111: counting raced."""
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: allowed(limits, (SLOW, "a")), range(200)))
    assert results.count(True) == 5


def test_subjects_do_not_share_a_bucket(limits):
    for subject in ("a", "b"):
        assert [allowed(limits, (SLOW, subject)) for _ in range(6)].count(True) == 5


def test_what_is_refused_takes_nothing_from_the_other_bucket(limits):
    for _ in range(20):
        allowed(limits, (SLOW, "a"), (WIDE, "net"))
    assert [allowed(limits, (WIDE, "net")) for _ in range(50)].count(True) == 45


def test_what_succeeds_is_given_back(limits):
    for _ in range(20):
        limits.take((SLOW, "a"))
        limits.give_back((SLOW, "a"))
    assert [allowed(limits, (SLOW, "a")) for _ in range(6)].count(True) == 5


def test_off_means_off(redis_url):
    limits = RateLimits(RedisStore(redis_url), enabled=False)
    assert all(allowed(limits, (SLOW, "a")) for _ in range(20))


def test_keys_are_short_and_expire(limits):
    limits.take((SLOW, "x" * 10_000))
    client = raw_redis(limits._store)
    (key,) = client.keys("ts:*")
    assert len(key) < 60
    assert 0 < client.pttl(key) <= 60_000


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("not an address", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_subscriber_is_an_address_or_a_64(address, network):
    assert network_of(address) == network
