"""Rate limits: exact under parallel use, one bucket per subscriber, nothing taken when anything is full."""

import math
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.answers import granted, refused
from tests.redis_access import raw_redis
from tokenserver.config import Rate
from tokenserver.errors import TooManyRequests
from tokenserver.storage.redis import RedisStore
from tokenserver.web.rate_limit import REMEMBERED, Limit, LocalBuckets, RateLimits, network_of

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


def test_two_refusals_at_once_wait_for_the_longer(limits):
    for _ in range(5):
        limits.take((SLOW, "a"), (WIDE, "net"))
    taken = limits.ask((SLOW, "a"), (WIDE, "net"))
    assert 59 <= taken.wait <= 60
    assert [state.remaining for state in taken.states] == [0, 45]


def test_who_proved_something_is_forgiven(limits):
    for _ in range(5):
        limits.take((SLOW, "a"), (WIDE, "net"))
    limits.give_back((WIDE, "net"), forget=[(SLOW, "a")])
    assert [allowed(limits, (SLOW, "a")) for _ in range(6)].count(True) == 5
    assert [allowed(limits, (WIDE, "net")) for _ in range(50)].count(True) == 46


def test_rates_that_are_no_whole_number_of_milliseconds(limits):
    odd = Limit.of("odd", Rate(7, 3600))
    assert [allowed(limits, (odd, "a")) for _ in range(8)].count(True) == 7
    for _ in range(7):
        limits.give_back((odd, "a"))
    assert [allowed(limits, (odd, "a")) for _ in range(8)].count(True) == 7


class TestInThisProcess:
    """By a clock that stands still until it is set."""

    @pytest.fixture
    def clock(self):
        return [1000.0]

    @pytest.fixture
    def limits(self, clock, redis_url):
        return RateLimits(RedisStore(redis_url), enabled=True, clock=lambda: clock[0])

    @staticmethod
    def allowed(limits, limit, subject="a"):
        try:
            limits.take_here(limit, subject)
        except TooManyRequests:
            return False
        return True

    def test_the_burst_then_one_per_interval(self, limits, clock):
        fast = Limit.of("fast", Rate(500, 1))
        assert [self.allowed(limits, fast) for _ in range(501)].count(True) == 500
        clock[0] += 0.0021
        assert [self.allowed(limits, fast) for _ in range(2)] == [True, False]
        assert self.allowed(limits, fast, "b")
        clock[0] += 1
        assert [self.allowed(limits, fast) for _ in range(501)].count(True) == 500

    @pytest.mark.parametrize("quota", [3, 500, 5000, 10_000])
    def test_what_is_left_is_one_less_each_time(self, quota):
        buckets, limit = LocalBuckets(lambda: 123_456.789), Limit.of("told", Rate(quota, 1))
        assert [buckets.take(limit, "a")[1].remaining for _ in range(3)] == [quota - 1, quota - 2, quota - 3]

    @given(st.floats(0, 1e7, allow_nan=False))
    def test_no_second_too_many_is_told(self, now):
        buckets = LocalBuckets(lambda: now)
        taken = [buckets.take(SLOW, "a") for _ in range(SLOW.burst + 1)]
        assert {math.ceil(state.next_ms / 1000) for _, state in taken} == {round(SLOW.interval_ms / 1000)}
        assert taken[-1][0] == SLOW.interval_ms

    def test_nobody_is_asked(self, limits, round_trips):
        with round_trips() as trips:
            assert self.allowed(limits, SLOW)
        assert trips.count == 0

    def test_threads_count_together(self, limits):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: self.allowed(limits, WIDE), range(400))).count(True) == 50

    def test_it_remembers_a_bounded_number_of_subjects(self, limits):
        for number in range(REMEMBERED + 5):
            self.allowed(limits, SLOW, str(number))
        assert len(limits._local._free_at[SLOW.name]) == REMEMBERED

    def test_off_means_off(self, redis_url):
        limits = RateLimits(RedisStore(redis_url), enabled=False)
        assert all(self.allowed(limits, SLOW) for _ in range(20))


class TestHeaders:
    """draft-ietf-httpapi-ratelimit-headers-10."""

    @pytest.fixture
    def backend(self):
        return "sqlite"

    @pytest.fixture
    def slow(self, apps):
        return apps(limit_token=Rate(3, 3600), limit_register=Rate(2, 600)).test_client()

    def test_of_a_limited_endpoint(self, slow):
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": "rt_wrong"}
        answers = [slow.post("/oauth/token", data=form) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [400, 400, 400, 429]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"token";q=3;w=3600'}
        told = [re.fullmatch(r'"token";r=(\d);t=(\d+)', answer.headers["RateLimit"]).groups() for answer in answers]
        assert [remaining for remaining, _ in told] == ["2", "1", "0", "0"]
        assert all(1 <= int(seconds) <= 1200 for _, seconds in told)
        refused(answers[-1], 429, "slow_down")
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 1200

    def test_of_a_rest_endpoint(self, slow):
        answers = [slow.post("/auth/register", json={"username": "ann"}) for _ in range(3)]
        assert [answer.headers.get("RateLimit") for answer in answers] == [None] * 3  # refused before it counts
        body = {"username": "ann", "email": "ann@example.org", "password": "short"}
        answers = [slow.post("/auth/register", json=body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [422, 422, 429]
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
        assert answers[0].headers["RateLimit-Policy"] == '"register";q=2;w=600'

    def test_nothing_is_told_where_nothing_is_limited(self, client):
        assert "RateLimit" not in client.get("/healthz").headers
        assert "RateLimit-Policy" not in client.get("/.well-known/jwks.json").headers


class TestClients:
    """RFC 6749 section 2.3.1: the endpoints must be protected against brute force."""

    @pytest.fixture
    def backend(self):
        return "sqlite"

    @pytest.fixture
    def app(self, apps):
        return apps(limit_client_authentication=Rate(5, 3600), limit_introspection=Rate(3, 3600))

    @staticmethod
    def ask(client, path="/oauth/token", secret="wrong", name="backend", address="192.0.2.1"):
        form = {"grant_type": "client_credentials", "token": "x"}
        return client.post(path, data=form, auth=(name, secret), environ_overrides={"REMOTE_ADDR": address})

    def test_guesses_at_a_secret(self, client, apps, confidential):
        """Of one client from one network, whichever endpoint; then the right one isn't looked at either."""
        paths = ("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/oauth/device_authorization")
        answers = [self.ask(client, paths[number % 4]) for number in range(5)]
        for answer in answers:
            refused(answer, 401, "invalid_client")
        assert "r=0" in answers[-1].headers["RateLimit"]
        assert int(refused(self.ask(client), 429, "slow_down").headers["Retry-After"]) >= 1
        refused(self.ask(client, secret=confidential[1]), 429, "slow_down")
        # Another process learns it by the next wrong one.
        other = apps(**LIMITED).test_client()
        refused(self.ask(other), 429, "slow_down")
        refused(self.ask(other, secret=confidential[1]), 429, "slow_down")
        # Nobody else is kept away.
        granted(self.ask(client, secret=confidential[1], address="192.0.2.2"))
        refused(self.ask(client, name="other"), 401, "invalid_client")

    def test_guesses_at_many_clients(self, client, confidential):
        answers = [self.ask(client, name=f"client{number}").status_code for number in range(52)]
        assert answers == [401] * 50 + [429] * 2
        refused(self.ask(client, secret=confidential[1]), 429, "slow_down")
        granted(self.ask(client, secret=confidential[1], address="2001:db8::1"))

    def test_what_is_refused_asks_nobody(self, client, confidential, round_trips):
        for _ in range(7):
            self.ask(client)
        with round_trips() as trips:
            refused(self.ask(client), 429, "slow_down")
        assert trips.count == 1  # what is denied is written down

    def test_introspections_of_one_client(self, client, confidential):
        answers = [self.ask(client, "/oauth/introspect", confidential[1]) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        granted(self.ask(client, secret=confidential[1]))

    def test_a_public_client_is_counted_by_network(self, apps):
        """It proves nothing: else anybody could use up what all its users need."""
        client = apps(limit_token=Rate(3, 3600)).test_client()
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": "rt_wrong"}

        def ask(address):
            return client.post("/oauth/token", data=form, environ_overrides={"REMOTE_ADDR": address}).status_code

        assert [ask(f"2001:db8::{number}") for number in range(4)] == [400, 400, 400, 429]
        assert ask("2001:db8:0:1::1") == 400


LIMITED = {"limit_client_authentication": Rate(5, 3600), "limit_introspection": Rate(3, 3600)}


class TestForwardedAddresses:
    """E33: proxies are trusted by their number alone."""

    @pytest.fixture
    def backend(self):
        return "sqlite"

    @staticmethod
    def tried(client, forwarded, peer="10.0.0.1"):
        """How many of 8 registrations were looked at. `forwarded`: the header, by the number of the request."""
        body = {"username": "ann", "email": "ann@example.org", "password": "short"}
        answers = []
        for number in range(8):
            headers = {"X-Forwarded-For": forwarded(number)} if forwarded(number) else {}
            answer = client.post(
                "/auth/register", json=body, headers=headers, environ_overrides={"REMOTE_ADDR": peer}
            )
            answers.append(answer.status_code)
        assert set(answers) <= {422, 429}
        return answers.count(422)

    @pytest.mark.parametrize(
        ("hops", "appended"),
        [
            (0, ""),  # nobody appended anything: all of it is made up
            (1, "203.0.113.7"),
            (2, "203.0.113.7, 10.0.0.9"),
        ],
    )
    def test_what_a_client_sends_itself_is_no_bypass(self, apps, hops, appended):
        client = apps(trusted_proxies=hops, limit_register=Rate(3, 3600)).test_client()
        forged = lambda number: ", ".join(filter(None, (f"198.51.100.{number}", appended)))  # noqa: E731
        assert self.tried(client, forged) == 3

    @pytest.mark.parametrize("hops", [1, 2])
    def test_the_hop_that_is_trusted_tells_who_asks(self, apps, hops):
        client = apps(trusted_proxies=hops, limit_register=Rate(3, 3600)).test_client()
        behind = ", 10.0.0.9" * (hops - 1)
        assert self.tried(client, lambda number: f"203.0.113.{number}{behind}") == 8
        assert self.tried(client, lambda number: f"2001:db8::{number:x}{behind}") == 3

    def test_with_fewer_hops_than_are_trusted_the_peer_counts(self, apps):
        client = apps(trusted_proxies=2, limit_register=Rate(3, 3600)).test_client()
        assert self.tried(client, lambda number: f"198.51.100.{number}") == 3
        assert self.tried(client, lambda _: "", peer="10.0.0.2") == 3

    def test_what_is_no_address_is_one_network(self, apps):
        client = apps(trusted_proxies=1, limit_register=Rate(3, 3600)).test_client()
        assert self.tried(client, lambda number: f"made up {number}") == 3


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
