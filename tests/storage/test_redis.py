"""The store itself: who answers, who does not, and that nobody waits for a Redis that is known to be away."""

import socketserver
import threading
import time
from contextlib import closing

import pytest
import redis

from tests.redis_access import raw_redis
from tests.redis_servers import Single
from tokenserver.errors import ConfigurationError, StoreUnavailable
from tokenserver.storage.redis import RedisReplaced, RedisStore
from tokenserver.storage.redis_client import HeldConnections
from tokenserver.storage.redis_node import PAUSE_SECONDS


@pytest.fixture
def own_redis():
    """One, whatever the topology of the run: what is asked here is how the store meets one Redis process."""
    with Single(unix=True) as server:
        yield server


@pytest.fixture
def store(own_redis):
    made = RedisStore(own_redis.url())
    made.trust(0, made.ask_unverified(0, lambda c: c.ping())[0])
    yield made
    made.close()


def ping(store):
    return store.ask(0, lambda client: client.ping())


def heals(store):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return ping(store)
        except StoreUnavailable:
            time.sleep(0.02)
    return False


def test_a_hanging_redis_is_waited_for_once_and_heals(store, own_redis, round_trips):
    """E17."""
    own_redis.pause()
    try:
        with pytest.raises(StoreUnavailable):
            ping(store)
        store._homes[0].breaker._retry_at = time.monotonic() + 60  # the pause, however slow this machine is
        with round_trips() as trips:
            for _ in range(100):
                with pytest.raises(StoreUnavailable):
                    ping(store)
        assert trips.count == 0
    finally:
        own_redis.resume()
    store._homes[0].breaker._retry_at = time.monotonic()
    assert heals(store)


def test_one_caller_at_a_time_finds_out_whether_it_is_back(store, own_redis):
    own_redis.stop(kill=True)
    with pytest.raises(StoreUnavailable):
        ping(store)
    breaker = store._homes[0].breaker
    breaker._retry_at = time.monotonic()
    breaker.admit()
    with pytest.raises(StoreUnavailable):
        breaker.admit()
    assert PAUSE_SECONDS < 1


def test_a_restarted_redis_is_a_stranger(store, own_redis):
    own_redis.stop()
    own_redis.start()
    with pytest.raises(RedisReplaced):
        ping(store)
    with pytest.raises(RedisReplaced):
        ping(store)
    store.trust(0, store.ask_unverified(0, lambda client: client.ping())[0])
    assert ping(store)


def test_nothing_is_sent_to_a_stranger(store, own_redis):
    own_redis.stop()
    own_redis.start()
    with pytest.raises(RedisReplaced):
        store.ask(0, lambda client: client.set("left", "behind"))
    assert not raw_redis(store).exists("left")


def test_a_replica_is_refused_by_name(own_redis):
    """E18. It would answer from what it last heard."""
    raw = RedisStore(own_redis.url())
    raw_redis(raw).replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable) as refusal:
        raw.ask_unverified(0, lambda client: client.ping())
    assert "replica" in refusal.value.private
    raw.close()


def test_a_master_that_became_a_replica_takes_nothing(store, own_redis):
    ping(store)
    raw_redis(store).replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable):
        store.ask(0, lambda client: client.set("a", "b"))
    raw_redis(store).replicaof("no", "one")
    assert heals(store)


def test_a_user_who_may_not_is_an_outage():
    """E18."""
    with Single(acl=True) as server:
        made = RedisStore(server.url())
        server.admin().execute_command("ACL SETUSER", "tokenserver", "-get")
        with pytest.raises(StoreUnavailable) as refusal:
            made.ask_unverified(0, lambda client: client.get("ts:{0}:x"))
        assert "NoPermission" in refusal.value.private
        made.close()


def test_garbage_on_the_port_is_an_outage(tmp_path):
    """E18."""

    class Garbage(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1024)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Garbage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = RedisStore(f"redis://127.0.0.1:{server.server_address[1]}/0")
        with pytest.raises(StoreUnavailable):
            made.ask_unverified(0, lambda client: client.ping())
        made.close()
        server.shutdown()


def test_a_script_that_redis_forgot_is_sent_again(store):
    assert store.run_script(0, "lease", ["ts:{0}:l"], ["a", 60_000]) == 1
    raw_redis(store).script_flush()
    assert store.run_script(0, "lease", ["ts:{0}:l"], ["b", 60_000]) == 0


def test_the_families_of_a_cluster_are_spread_over_its_buckets():
    store = RedisStore("redis+cluster://127.0.0.1:1")
    spread = {store.bucket_of(f"{n:032x}") for n in range(1000)}
    assert spread == set(store.buckets)
    assert len(RedisStore("redis://127.0.0.1:1").buckets) == 1


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://127.0.0.1:1/0?timeout=3", "timeout"),
        ("redis://127.0.0.1:1/0?ssl_ca_certs=/etc/hosts", "ssl_ca_certs"),
        ("rediss://127.0.0.1:1/0?ssl_ca_certs=/no/such/file", "ssl_ca_certs"),
        ("redis://127.0.0.1:1/sessions", "database"),
        ("redis+sentinel://127.0.0.1:1", "service"),
        ("redis+sentinel://127.0.0.1/main/0", "host:port"),
        ("redis+sentinel://127.0.0.1:1,127.0.0.1:99999/main/0", "host:port"),
        ("redis+sentinel://127.0.0.1:1/main/first", "database"),
        ("redis+sentinel://127.0.0.1:1/main/0/1", "service"),
        ("redis+cluster://127.0.0.1:1/3", "database"),
    ],
)
def test_a_url_that_cant_be_meant_is_refused_by_its_fault(url, word):
    with pytest.raises(ConfigurationError, match=word):
        RedisStore(url)


def test_a_forked_process_leaves_the_connections_of_its_parent_alone(own_redis, monkeypatch):
    client = HeldConnections.from_url(own_redis.url())
    ours = client.client_id()
    assert client.client_id() == ours
    held = client._idle
    monkeypatch.setattr("tokenserver.storage.redis_client.os.getpid", lambda: -1)
    assert client.client_id() != ours
    assert len(held) == 1
    client._idle, mine = held, client._idle
    client.close()
    for line, _ in mine:
        line.connection.disconnect()


def test_who_is_hung_up_on_while_idle_loses_no_command(own_redis):
    client = HeldConnections.from_url(own_redis.url())
    with closing(client):
        ours = client.client_id()
        with closing(redis.Redis.from_url(own_redis.url())) as other:
            other.client_kill_filter(_id=str(ours))
        client._idle.append((client._idle.pop()[0], 0.0))  # since long
        assert client.client_id() != ours


def test_a_reply_that_comes_too_late_is_nobody_s(own_redis):
    client = HeldConnections.from_url(own_redis.url(), socket_timeout=0.2)
    with closing(client):
        client.set("mine", "1")
        own_redis.pause()
        try:
            with pytest.raises(redis.TimeoutError):
                client.get("mine")
        finally:
            own_redis.resume()
        assert client.execute_command("ECHO", "other") == b"other"


def test_a_refusal_leaves_the_connection(own_redis):
    client = HeldConnections.from_url(own_redis.url())
    with closing(client):
        ours = client.client_id()
        with pytest.raises(redis.ResponseError):
            client.execute_command("NONSENSE")
        assert client.client_id() == ours
