"""The change feed: what was committed holds in every process, and an emptied or replaced Redis is noticed."""

import threading

import pytest
from sqlalchemy import select, update

from tests.redis_access import forget_states, raw_redis
from tokenserver.app import rooms_of
from tokenserver.background import Background
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.feed import FIRST_STATE, NOTHING, Change, Kind, ServerState, feed_key, state_key
from tokenserver.tokens.sessions import EndReason


def is_known(rooms, subject):
    return rooms.collaborators.revocation.is_revoked(issued_at=0, token_id=subject)


def epochs(rooms):
    return [mark.epoch for mark in rooms.feed.known()]


def deny(rooms, subject):
    rooms.feed.change(lambda tx, change: change.note(Kind.TOKEN, subject))


def test_an_entry_reaches_the_other_processes_at_their_next_look(apps):
    here, there = rooms_of(apps()), rooms_of(apps())
    there.feed.sync()
    deny(here, "t1")
    assert is_known(here, "t1")
    assert not is_known(there, "t1")
    there.feed.sync()
    assert is_known(there, "t1")


def test_a_failed_transaction_leaves_no_entry(rooms):
    def fail(tx, change):
        change.note(Kind.TOKEN, "t1")
        raise ValueError

    with pytest.raises(ValueError):
        rooms.feed.change(fail)
    rooms.feed.sync()
    assert not is_known(rooms, "t1")


def test_looking_costs_one_round_trip(rooms, round_trips):
    rooms.feed.sync()
    with round_trips() as trips:
        rooms.feed.sync()
    assert trips.count == 1


@pytest.mark.parametrize("loss", ["flushdb", "state", "other epoch"])
def test_an_emptied_redis_is_written_again_from_sql(apps, loss):
    here, there = rooms_of(apps()), rooms_of(apps())
    there.feed.sync()
    deny(here, "t1")
    client = raw_redis(here.store)
    if loss == "flushdb":
        client.flushdb()
    elif loss == "state":
        forget_states(here.store)
    else:
        for bucket in here.store.buckets:
            client.hset(state_key(bucket), "epoch", "of another deployment")
    there.feed.sync()
    assert is_known(there, "t1")
    for bucket in here.store.buckets:
        here.feed.sync(bucket)
        there.feed.sync(bucket)
        assert here.feed.epoch(bucket) == there.feed.epoch(bucket) == client.hget(state_key(bucket), "epoch")


@pytest.mark.parametrize("backend", ["postgresql"])
class TestWhatIsRevokedWhileAProcessCompares:
    """E05. SQLite has one writer at a time, so there it can't happen."""

    def test_in_the_middle(self, apps, monkeypatch):
        here, there = rooms_of(apps()), rooms_of(apps())
        here.feed.sync()
        look = there.feed._look

        def revoked_meanwhile(bucket):
            deny(here, f"t{bucket}")
            return look(bucket)

        monkeypatch.setattr(there.feed, "_look", revoked_meanwhile)
        for bucket in there.store.buckets:
            there.feed.verify(bucket)
            there.feed.sync(bucket)
            assert is_known(there, f"t{bucket}")

    def test_while_the_mirror_is_written(self, apps, monkeypatch):
        """By who knows of no change: under the old epoch, into the old mirror."""
        here, there = rooms_of(apps()), rooms_of(apps())
        here.feed.sync()
        here.database.write(lambda tx: tx.execute(update(ServerState).values(redis_run_id="another")))
        write = there.feed._write_mirror
        revoking = []

        def revoked_meanwhile(*arguments):
            thread = threading.Thread(target=deny, args=(here, "t1"))
            thread.start()
            thread.join(1)  # it is done, or waits for the comparison to end
            revoking.append(thread)
            return write(*arguments)

        monkeypatch.setattr(there.feed, "_write_mirror", revoked_meanwhile)
        there.feed.verify(0)
        for thread in revoking:
            thread.join(30)
        there.feed.sync(0)
        assert is_known(there, "t1")


def test_sql_restored_from_elsewhere_is_noticed_at_the_start_of_a_process(apps):
    here = rooms_of(apps())
    here.feed.sync()
    here.database.write(lambda tx: tx.execute(update(ServerState).values(epoch="another")))
    there = rooms_of(apps())
    there.feed.sync()
    assert there.feed.is_informed
    assert not set(epochs(there)) & {"another", *filter(None, epochs(here))}


def test_an_entry_whose_writer_died_before_mirroring_is_mended(apps):
    """kill -9 between the commit and Redis: the client got no answer, but everybody must agree in the end."""
    here, there = rooms_of(apps()), rooms_of(apps())
    there.feed.sync()

    def commit_only(tx):
        change = Change()
        change.note(Kind.TOKEN, "t1")
        change.save(tx, here.feed.retention_ms)

    here.database.write(commit_only)
    there.feed.sync()
    assert not is_known(there, "t1")
    here.feed.sync()
    assert here.feed.reconcile() == 1
    assert here.feed.reconcile() == 0
    there.feed.sync()
    assert is_known(there, "t1")


def test_a_revocation_that_waited_longer_than_its_retention_still_ends_its_family(apps, api_of):
    """A process lost Redis, but not SQL, for a long time: the 503 it answered must not become a yes later."""
    here, there = apps(), apps()
    api, rooms = api_of(here), rooms_of(here)
    token = api.signed_in()["refresh_token"]
    family_id = rooms.refresh_tokens.parse(token)[0]

    def end_without_mirroring(tx):
        change = Change()
        rooms.sessions.end(tx, change, family_id=family_id, reason=EndReason.REVOKED)
        change.save(tx, retention_ms=-1)

    rooms.database.write(end_without_mirroring)
    background = Background(rooms_of(there))
    background._reconcile()
    background._purge()
    assert api.refresh(token).status_code == 401
    assert api_of(apps()).refresh(token).status_code == 401


def test_nothing_is_purged_before_it_was_mirrored(apps):
    rooms = rooms_of(apps())

    def commit_only(tx):
        change = Change()
        change.note(Kind.TOKEN, "t1")
        change.save(tx, retention_ms=-1)

    rooms.database.write(commit_only)
    background = Background(rooms)
    background._purge()
    assert rooms.feed.reconcile() >= 1
    background._reconcile()
    background._purge()
    with rooms.database.engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM feed WHERE subject = 't1'").scalar_one()
    assert left == 0


def test_the_stream_does_not_grow_for_ever(rooms):
    rooms.feed.sync()
    client = raw_redis(rooms.store)
    client.delete(feed_key(0))
    with client.pipeline() as pipeline:
        for i in range(500):
            pipeline.xadd(feed_key(0), {"e": "[]"}, id=f"{i + 1}-0")
        pipeline.execute()
    deny(rooms, "t1")
    assert client.xlen(feed_key(0)) < 200


@pytest.mark.parametrize("then", ["nothing", "one more"])
def test_who_missed_entries_that_the_stream_has_forgotten_reads_sql(apps, then):
    """It slept for longer than the stream remembers, or Redis was told to evict."""
    here, there = rooms_of(apps()), rooms_of(apps())
    there.feed.follow()
    deny(here, "t1")
    for bucket in here.store.buckets:
        raw_redis(here.store).delete(feed_key(bucket))
    if then == "one more":
        deny(here, "t2")
    there.feed.sync()
    assert is_known(there, "t1")
    assert is_known(there, "t2") == (then == "one more")


def test_a_process_that_hears_a_replaced_master_finds_out_from_sql(apps):
    """The network is split: what this process reads stands still, and the others went on elsewhere."""
    here = rooms_of(apps())
    here.feed.follow()
    assert NOTHING not in here.feed.known()
    change = update(ServerState).values(epoch="of the successor")
    here.database.write(lambda tx: tx.execute(change))
    here.feed.follow()
    assert set(here.feed.known()) == {NOTHING}
    here.feed.follow()
    states = here.database.read(lambda tx: tx.scalars(select(ServerState).order_by(ServerState.id)).all())
    assert [state.epoch for state in states] == epochs(here)
    assert states[0].id == FIRST_STATE


def test_readers_never_meet_a_moment_of_forgetting(rooms):
    deny(rooms, "t1")
    stop = threading.Event()
    forgot = []

    def read():
        while not stop.is_set():
            if not is_known(rooms, "t1"):
                forgot.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        raw_redis(rooms.store).flushdb()
        rooms.feed.sync()
    stop.set()
    reader.join()
    assert not forgot


class TestRedisProcess:
    """With a Redis of its own, that is stopped, restarted and given an old snapshot."""

    @pytest.fixture
    def redis_url(self, own_redis):
        return own_redis.url()

    def test_away_means_unavailable_and_it_heals(self, apps, own_redis):
        rooms = rooms_of(apps())
        rooms.feed.sync()
        own_redis.stop()
        with pytest.raises(StoreUnavailable):
            rooms.feed.sync()
        with pytest.raises(StoreUnavailable):
            deny(rooms, "t1")
        assert is_known(rooms, "t1")  # it was committed, and holds here already
        own_redis.start()
        rooms.feed.sync()
        assert is_known(rooms, "t1")
        other = rooms_of(apps())
        other.feed.sync()
        assert is_known(other, "t1")

    def test_an_old_snapshot_put_back_resurrects_nothing(self, apps, api_of, own_redis):
        """E10: the snapshot holds the very epoch that SQL knows, a live generation and no revocation."""
        app, other = apps(), apps()
        api = api_of(app)
        revoked, rotated = api.signed_in(), api.signed_in("bob")
        chain = [rotated["refresh_token"]]
        rooms = rooms_of(app)
        rooms_of(other).feed.sync()
        client = raw_redis(rooms.store)
        own_redis.snapshot()

        api.http.post("/auth/logout", headers={"Authorization": f"Bearer {revoked['access_token']}"})
        for _ in range(4):
            chain.append(api.refresh(chain[-1]).json["refresh_token"])
        rooms.checkpoints.drain()
        own_redis.restore()
        for bucket in rooms.store.buckets:  # nothing in it looks suspicious
            assert client.hget(state_key(bucket), "epoch") == rooms.feed.epoch(bucket)

        for process in (api_of(other), api, api_of(apps())):
            assert process.me(revoked["access_token"]).status_code == 401
            assert process.refresh(revoked["refresh_token"]).status_code == 401
        # The token that is current in the snapshot was consumed long ago; the live one goes on.
        live = api.refresh(chain[-1])
        assert live.status_code == 200
        assert api.refresh(chain[0]).status_code == 401

    def test_eviction_or_loading_is_not_an_answer(self, apps, api_of, own_redis):
        app = apps()
        api = api_of(app)
        tokens = api.signed_in()
        raw_redis(rooms_of(app).store).config_set("maxmemory", "1")
        assert api.refresh(tokens["refresh_token"]).status_code == 503
        raw_redis(rooms_of(app).store).config_set("maxmemory", "0")
        assert api.refresh(tokens["refresh_token"]).status_code == 200

    @pytest.mark.parametrize("path", ["/users/me", "/auth/refresh", "/oauth/token", "/oauth/introspect", "/readyz"])
    def test_without_redis_every_entry_point_answers_503(self, apps, api_of, own_redis, path):
        api = api_of(apps())
        tokens = api.signed_in()
        own_redis.stop()
        answers = {
            "/users/me": lambda: api.me(tokens["access_token"]),
            "/auth/refresh": lambda: api.refresh(tokens["refresh_token"]),
            "/oauth/token": lambda: api.token(("x", "y"), grant_type="client_credentials"),
            "/oauth/introspect": lambda: api.introspect(("x", "y"), tokens["access_token"]),
            "/readyz": lambda: api.http.get("/readyz"),
        }
        response = answers[path]()
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        own_redis.start()
        assert api.me(tokens["access_token"]).status_code == 200
        assert api.refresh(tokens["refresh_token"]).status_code == 200
