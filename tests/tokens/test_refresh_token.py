"""Refresh families (docs/refresh-tokens.md): rotation, grace, reuse, lost writes, checkpoints."""

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from tests.families import Writer
from tests.redis_access import forget_states, raw_redis
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.audit.trail import FULL, events_key
from tokenserver.storage.feed import now_ms, state_key
from tokenserver.tokens import checkpoints
from tokenserver.tokens.family_hash import short
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.refresh_family import Outcome
from tokenserver.tokens.refresh_token import rotations_key


def family_of(rooms, token):
    return rooms.refresh_tokens.parse(token)[0]


def generation_of(rooms, token):
    return rooms.refresh_tokens.parse(token)[1]


def refreshed(api, token):
    response = api.refresh(token)
    assert response.status_code == 200, response.text
    return response.json


def is_refused(response):
    return response.status_code == 401 and response.json["code"] == "invalid_refresh_token"


def age(rooms, token, *, ms):
    """Let the last rotation of a token's family lie further back."""
    Writer(rooms).age(token, ms)


class TestToken:
    """The token itself: nothing is stored, nothing can be forged, there is one spelling."""

    def test_round_trip(self, rooms):
        family_id = uuid4()
        token = rooms.refresh_tokens.issue(family_id, 7)
        assert token.startswith("rt_")
        assert rooms.refresh_tokens.parse(token) == (family_id, 7)

    def test_every_altered_character_is_refused(self, rooms):
        token = rooms.refresh_tokens.issue(uuid4(), 1)
        for i in range(3, len(token)):
            altered = token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :]
            assert rooms.refresh_tokens.parse(altered) is None, i

    def test_a_generation_cannot_be_moved_to_another_family_or_number(self, rooms):
        raw = base64.urlsafe_b64decode(rooms.refresh_tokens.issue(uuid4(), 1)[3:] + "==")
        other = base64.urlsafe_b64decode(rooms.refresh_tokens.issue(uuid4(), 2)[3:] + "==")
        for forged in (other[:16] + raw[16:], raw[:16] + other[16:20] + raw[20:]):
            assert rooms.refresh_tokens.parse("rt_" + base64.urlsafe_b64encode(forged).decode().rstrip("=")) is None

    @pytest.mark.parametrize(
        "token", ["", "rt_", "rt_AAAA", "rt_" + "A" * 70, "x" * 5000, "rt_é", "rt_\ud800", "rt_=="]
    )
    def test_garbage_is_refused(self, rooms, token):
        assert rooms.refresh_tokens.parse(token) is None

    def test_other_spellings_of_a_good_token_are_refused(self, rooms):
        token = rooms.refresh_tokens.issue(uuid4(), 1)
        for other in (token + "=", token + "\n", token[3:], token.replace("_", "/", 2), " " + token):
            assert rooms.refresh_tokens.parse(other) is None

    def test_redis_holds_nothing_that_can_be_spent(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        refreshed(api, token)
        assert raw_redis(rooms.store).keys("ts:*f:*") == [Writer(rooms).key(token)]
        dump = b"".join(Writer(rooms).fields(token).values())
        mac = base64.urlsafe_b64decode(token.removeprefix("rt_") + "==")[20:]
        assert not any(mac[i : i + 8] in dump for i in range(25))
        assert token[25:].encode() not in dump


class TestRotation:
    def test_each_refresh_consumes_and_succeeds(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        for generation in range(2, 6):
            response = refreshed(api, token)
            token = response["refresh_token"]
            assert generation_of(rooms, token) == generation
            assert api.me(response["access_token"]).status_code == 200

    def test_the_hash_in_redis_does_not_grow(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        before = {name: len(value) for name, value in Writer(rooms).fields(token).items()}
        for _ in range(5):
            token = refreshed(api, token)["refresh_token"]
        assert {name: len(value) for name, value in Writer(rooms).fields(token).items()} == before

    def test_concurrent_use_gives_one_successor(self, apps, api):
        """Two tabs, two egress addresses, one lost answer: nobody is signed out, nothing forks."""
        token = api.signed_in()["refresh_token"]
        clients = [apps().test_client(), apps().test_client()]

        def use(i):
            return clients[i % 2].post("/auth/refresh", json={"refresh_token": token})

        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(use, range(50)))
        assert {r.status_code for r in responses} == {200}
        assert len({r.json["refresh_token"] for r in responses}) == 1
        refreshed(api, responses[0].json["refresh_token"])


class TestGrace:
    def test_the_parent_gets_the_same_successor_again(self, api):
        token = api.signed_in()["refresh_token"]
        first, second = refreshed(api, token), refreshed(api, token)
        assert first["refresh_token"] == second["refresh_token"]
        assert first["access_token"] != second["access_token"]
        assert api.me(second["access_token"]).status_code == 200

    def test_it_counts_from_the_rotation_and_does_not_slide(self, apps, api_of):
        app = apps(refresh_grace=600)
        api, rooms = api_of(app), rooms_of(app)
        token = api.signed_in()["refresh_token"]
        refreshed(api, token)
        age(rooms, token, ms=400_000)
        refreshed(api, token)
        age(rooms, token, ms=200_100)
        assert is_refused(api.refresh(token))

    @pytest.mark.parametrize("jump", [3_600_000, -3_600_000])
    def test_a_clock_that_jumps_does_not_lengthen_it(self, api, rooms, jump):
        """CVE-2026-9802: rotated tokens worked again after time was reset."""
        token = api.signed_in()["refresh_token"]
        refreshed(api, token)
        age(rooms, token, ms=jump)
        assert is_refused(api.refresh(token))

    @pytest.mark.parametrize(("ago", "answered"), [(20_000, True), (40_000, False)])
    def test_it_begins_anew_where_redis_was_replaced_soon_after(self, api, rooms, ago, answered):
        """A failover may take longer than the grace, and the answer may have been lost with the old master."""
        token = api.signed_in()["refresh_token"]
        successor = refreshed(api, token)["refresh_token"]
        age(rooms, token, ms=ago)
        forget_states(rooms.store)
        again = api.refresh(token)
        assert is_refused(again) if not answered else again.json["refresh_token"] == successor

    def test_that_lasts_no_longer_than_the_grace(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        refreshed(api, token)
        age(rooms, token, ms=25_000)
        forget_states(rooms.store)
        bucket = rooms.feed.bucket_of(family_of(rooms, token))
        rooms.feed.sync(bucket)
        raw_redis(rooms.store).hincrby(state_key(bucket), "began", -11_000)
        assert is_refused(api.refresh(token))

    def test_a_command_that_is_held_up_on_its_way_takes_no_effect(self, api, rooms):
        """It arrives when its sender has given up, tried again and gone on: nobody presented an old token now."""
        token = api.signed_in()["refresh_token"]
        successor = refreshed(api, refreshed(api, token)["refresh_token"])["refresh_token"]
        family = rooms.refresh_tokens.find(family_of(rooms, token))
        bucket = rooms.feed.bucket_of(family.id)
        keys = [rooms.feed.family_key(family.id), state_key(bucket), rotations_key(bucket), events_key(bucket)]
        arguments = [*rooms.feed.known()[bucket], 1, 10_000, family.id.hex, "merged", "[]", FULL]
        arguments += [family.expires_at, family.idle_lifetime, "", "", short(rooms.feed.epoch(bucket))]
        before = Writer(rooms).fields(family.id)
        assert rooms.store.run_script(bucket, "rotate", keys, [*arguments, now_ms() - 1])[0] == "late"
        assert Writer(rooms).fields(family.id) == before
        refreshed(api, successor)
        # The same in time is the theft that it looks like.
        assert rooms.store.run_script(bucket, "rotate", keys, [*arguments, now_ms() + 60_000])[0] == "reused"

    def test_when_the_clock_of_redis_is_set_it_is_asked_for_the_time(self, api, rooms, round_trips):
        token = api.signed_in()["refresh_token"]
        rooms.store._homes[rooms.feed.bucket_of(family_of(rooms, token))].set_clock(1_000_000)
        token = refreshed(api, token)["refresh_token"]
        with round_trips() as trips:
            refreshed(api, token)
        assert trips.count == 1

    def test_the_grandparent_is_reuse_even_within_it(self, api):
        """E07"""
        grandparent = api.signed_in()["refresh_token"]
        parent = refreshed(api, grandparent)["refresh_token"]
        live = refreshed(api, parent)["refresh_token"]
        assert is_refused(api.refresh(grandparent))
        assert is_refused(api.refresh(live))

    def test_a_revoked_family_has_none(self, api):
        """E08; django-oauth-toolkit #1816"""
        token = api.signed_in()["refresh_token"]
        live = refreshed(api, token)["refresh_token"]
        assert api.revoke(live).status_code == 200
        assert is_refused(api.refresh(token))
        assert is_refused(api.refresh(live))

    def test_another_client_has_none(self, api, confidential):
        token = api.signed_in()["refresh_token"]
        live = refreshed(api, token)["refresh_token"]
        for stolen in (token, live):
            response = api.token(confidential, grant_type="refresh_token", refresh_token=stolen)
            assert (response.status_code, response.json["error"]) == (400, "invalid_grant")
        refreshed(api, live)  # and the owner is not harmed by somebody else's attempt


class TestStrictSingleUse:
    """TOKENSERVER_REFRESH_GRACE=0"""

    def test_50_at_once_give_one_success(self, apps, api_of):
        apis = [api_of(apps(refresh_grace=0)) for _ in range(2)]
        token = apis[0].signed_in()["refresh_token"]
        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(lambda i: apis[i % 2].refresh(token), range(50)))
        assert sorted(r.status_code for r in responses) == [200] + [401] * 49

    def test_oauth_answers_invalid_grant(self, apps, api_of):
        api = api_of(apps(refresh_grace=0))
        token = api.signed_in()["refresh_token"]
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": token}
        assert api.token(**form).status_code == 200
        again = api.token(**form)
        assert (again.status_code, again.json["error"]) == (400, "invalid_grant")


class TestReuse:
    """RFC 9700 section 4.14.2: the active token and the family's access tokens end, and it is recorded."""

    @pytest.mark.parametrize("generations_back", [1, 2, 10])
    def test_a_consumed_token_ends_the_family(self, api, rooms, generations_back):
        """E04"""
        chain = [api.signed_in()]
        for _ in range(generations_back):
            chain.append(refreshed(api, chain[-1]["refresh_token"]))
        age(rooms, chain[0]["refresh_token"], ms=60_000)
        assert is_refused(api.refresh(chain[0]["refresh_token"]))
        assert is_refused(api.refresh(chain[-1]["refresh_token"]))
        assert {api.me(tokens["access_token"]).status_code for tokens in chain} == {401}

        family_id = family_of(rooms, chain[0]["refresh_token"])
        family = rooms.database.read(lambda tx: tx.get(RefreshFamily, family_id))
        assert family.end_reason == "refresh_token_reused"
        events = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent.event)).all())
        assert events.count("refresh_token:reused") == 1

    def test_only_this_session_ends(self, api, rooms):
        other = api.signed_in()
        tokens = api.login()
        refreshed(api, tokens["refresh_token"])
        age(rooms, tokens["refresh_token"], ms=60_000)
        assert is_refused(api.refresh(tokens["refresh_token"]))
        assert api.me(other["access_token"]).status_code == 200
        refreshed(api, other["refresh_token"])

    def test_it_is_finished_when_its_finder_was_killed_midway(self, api, rooms):
        """The script has ended the family in Redis; SQL and the feed follow from the event it left."""
        tokens = api.signed_in()
        refreshed(api, tokens["refresh_token"])
        age(rooms, tokens["refresh_token"], ms=60_000)
        family_id, generation = rooms.refresh_tokens.parse(tokens["refresh_token"])
        family = rooms.refresh_tokens.find(family_id)
        spent = rooms.refresh_tokens.spend(family, generation, rooms.feed.known(), "[]")
        assert spent.outcome is Outcome.REUSED
        assert api.me(tokens["access_token"]).status_code == 200  # not yet
        assert rooms.checkpoints.drain() > 0
        assert api.me(tokens["access_token"]).status_code == 401


class TestScope:
    """RFC 6749 section 6"""

    @pytest.fixture
    def tokens(self, api, confidential):
        api.register()
        form = {"grant_type": "password", "username": "ann", "password": "correct horse 7 battery"}
        return api.token(confidential, scope="openid posts:create", **form).json

    def test_a_narrower_scope_is_for_once(self, api, confidential, tokens):
        narrow = api.token(
            confidential, grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope="openid"
        ).json
        assert narrow["scope"] == "openid"
        again = api.token(confidential, grant_type="refresh_token", refresh_token=narrow["refresh_token"]).json
        assert again["scope"] == "openid posts:create"

    def test_a_wider_scope_is_refused_and_nothing_is_spent(self, api, confidential, tokens):
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        wide = api.token(confidential, scope="openid users:read", **form)
        assert (wide.status_code, wide.json["error"]) == (400, "invalid_scope")
        assert api.token(confidential, **form).status_code == 200


class TestLifetimes:
    def test_idle(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        age(rooms, token, ms=7 * 86_400_000)
        assert is_refused(api.refresh(token))

    def test_absolute_end_is_not_moved_by_rotations(self, api, apps, api_of, rooms):
        token = api.signed_in()["refresh_token"]
        token = refreshed(api, token)["refresh_token"]
        family = rooms.refresh_tokens.find(family_of(rooms, token))
        session = rooms.database.read(lambda tx: tx.get(Session, family.session_id))
        assert family.expires_at == int(session.expires_at.timestamp() * 1000)
        ended = datetime.now(UTC) - timedelta(seconds=1)
        rooms.database.write(lambda tx: tx.execute(update(RefreshFamily).values(expires_at=ended)))
        raw_redis(rooms.store).delete(rooms.feed.family_key(family.id))
        assert is_refused(api_of(apps()).refresh(token))

    def test_expired_families_are_not_restored_from_sql(self, apps, api_of):
        app = apps()
        api, rooms = api_of(app), rooms_of(app)
        token = api.signed_in()["refresh_token"]
        long_ago = datetime.now(UTC) - timedelta(days=8)
        rooms.database.write(lambda tx: tx.execute(update(RefreshFamily).values(rotated_at=long_ago)))
        raw_redis(rooms.store).flushdb()
        assert is_refused(api_of(apps()).refresh(token))


class TestLostWrites:
    """Redis may lose what it acknowledged; nobody honest is signed out and nothing consumed comes back."""

    def test_fast_forward(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        old = Writer(rooms).fields(token)
        for _ in range(3):
            token = refreshed(api, token)["refresh_token"]
        Writer(rooms).write(token, old)  # a failover to a replica that lagged
        assert generation_of(rooms, refreshed(api, token)["refresh_token"]) == 5

    def test_the_checkpoint_stops_what_was_consumed_before_it(self, api, rooms):
        chain = [api.signed_in()["refresh_token"]]
        old = Writer(rooms).fields(chain[0])
        for _ in range(5):
            chain.append(refreshed(api, chain[-1])["refresh_token"])
        rooms.checkpoints.drain()
        Writer(rooms).write(chain[0], old)
        assert is_refused(api.refresh(chain[3]))
        assert is_refused(api.refresh(chain[5]))  # reuse ended the family

    def test_who_is_behind_carries_batch_after_batch(self, api, rooms, monkeypatch):
        """As SQL may have been away for a while: what waits is what a failover may still take."""
        monkeypatch.setattr(checkpoints, "BATCH", 2)
        token = api.signed_in()["refresh_token"]
        for _ in range(5):
            token = refreshed(api, token)["refresh_token"]
        family_id, _ = rooms.refresh_tokens.parse(token)
        waiting = rotations_key(rooms.feed.bucket_of(family_id))
        assert raw_redis(rooms.store).xlen(waiting) == 5
        rooms.checkpoints.drain_all()
        assert raw_redis(rooms.store).xlen(waiting) == 0

    def test_what_is_current_in_an_old_copy_was_consumed(self, api, rooms):
        """The copy looks whole: only the epoch says that its families were not compared with SQL."""
        chain = [api.signed_in()["refresh_token"]]
        old = Writer(rooms).fields(chain[0])
        for _ in range(3):
            chain.append(refreshed(api, chain[-1])["refresh_token"])
        rooms.checkpoints.drain()
        forget_states(rooms.store)
        Writer(rooms).write(chain[0], old)
        assert is_refused(api.refresh(chain[0]))
        assert is_refused(api.refresh(chain[3]))

    def test_a_restart_that_lost_nothing_forgets_nothing(self, api, rooms):
        """Redis knows rotations that no checkpoint has seen yet."""
        chain = [api.signed_in()["refresh_token"]]
        for _ in range(3):
            chain.append(refreshed(api, chain[-1])["refresh_token"])
        forget_states(rooms.store)
        assert is_refused(api.refresh(chain[0]))

    def test_flushed_redis_consumed_is_dead_live_goes_on(self, apps, api, api_of, rooms):
        chain = [api.signed_in()["refresh_token"]]
        for _ in range(3):
            chain.append(refreshed(api, chain[-1])["refresh_token"])
        bob = api.signed_in("bob")["refresh_token"]
        bob = refreshed(api, bob)["refresh_token"]
        rooms.checkpoints.drain()
        raw_redis(rooms.store).flushdb()
        other = api_of(apps())
        assert is_refused(other.refresh(chain[1]))
        refreshed(other, bob)

    def test_flushed_redis_keeps_the_grace(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        first = refreshed(api, token)["refresh_token"]
        rooms.checkpoints.drain()
        raw_redis(rooms.store).flushdb()
        assert refreshed(api, token)["refresh_token"] == first

    def test_flushed_redis_ended_stays_ended(self, apps, api, api_of, rooms):
        token = api.signed_in()["refresh_token"]
        api.revoke(token)
        raw_redis(rooms.store).flushdb()
        assert is_refused(api.refresh(token))
        assert is_refused(api_of(apps()).refresh(token))

    def test_a_family_that_sql_does_not_know_is_refused(self, api, rooms):
        token = rooms.refresh_tokens.issue(UUID(int=1), 1)
        assert is_refused(api.refresh(token))


class TestCheckpoints:
    def test_drain_writes_the_newest_generation_and_empties_the_stream(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        for _ in range(4):
            token = refreshed(api, token)["refresh_token"]
        assert rooms.checkpoints.drain() == 4
        assert rooms.checkpoints.drain() == 0
        assert rooms.database.read(lambda tx: tx.scalar(select(RefreshFamily.generation))) == 5

    def test_it_never_goes_back(self, api, rooms):
        token = api.signed_in()["refresh_token"]
        family_id = family_of(rooms, token)
        rooms.database.write(lambda tx: tx.execute(update(RefreshFamily).values(generation=50)))
        raw_redis(rooms.store).xadd(
            rotations_key(rooms.feed.bucket_of(family_id)), {"f": family_id.hex, "g": 3, "r": 1}
        )
        rooms.checkpoints.drain()
        assert rooms.database.read(lambda tx: tx.scalar(select(RefreshFamily.generation))) == 50

    def test_one_statement_whatever_the_number_of_families(self, app, api, rooms, queries):
        tokens = [api.signed_in()["refresh_token"], *(api.login()["refresh_token"] for _ in range(3))]
        for token in tokens:
            refreshed(api, refreshed(api, token)["refresh_token"])
        with queries(app) as counter:
            assert rooms.checkpoints.drain() == 8
        assert counter.count <= 2 * len(rooms.store.buckets)  # with BEGIN
        generations = rooms.database.read(lambda tx: tx.scalars(select(RefreshFamily.generation)).all())
        assert generations == [3] * 4

    def test_one_process_drains(self, apps, rooms, monkeypatch):
        monkeypatch.setattr(checkpoints, "LEASE_MS", 60_000)  # a slow machine must not let it run out meanwhile
        other = rooms_of(apps())
        assert rooms.checkpoints.leads()
        assert not other.checkpoints.leads()
        raw_redis(rooms.store).delete("ts:{0}:drainer")
        assert other.checkpoints.leads()
