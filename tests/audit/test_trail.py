"""The event stream: what was answered is recorded and counted, once, whoever dies when."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from tests.answers import refused
from tests.conftest import PASSWORD, bearer
from tests.redis_access import raw_redis
from tokenserver.app import rooms_of
from tokenserver.audit import trail as trails
from tokenserver.audit import usage
from tokenserver.audit.chain import GENESIS
from tokenserver.audit.events import Event
from tokenserver.audit.log import Log, fits
from tokenserver.audit.models import AuditEvent, UsageCount
from tokenserver.audit.usage import Measure


def events(rooms, name=None):
    rooms.trail.drain_all()
    query = select(AuditEvent).order_by(AuditEvent.at)
    if name is not None:
        query = query.where(AuditEvent.event == name)
    return rooms.database.read(lambda tx: tx.scalars(query).all())


def waiting(rooms):
    return sum(raw_redis(rooms.store).xlen(trails.events_key(bucket)) for bucket in rooms.store.buckets)


def totals(rooms, window="1h"):
    rooms.trail.drain_all()
    return rooms.database.read(lambda tx: usage.totals(tx, window))


ISSUED = '{"grant_type":"client_credentials"}'


def stranger(event="strange", reason=None, client=None, details="{}", at=None):
    """An event that Redis holds, and nobody here has written."""
    texts = [event, "success", reason, None, client, None, "stranger", "GET", "/", None]
    return f"[{at or time.time_ns() // 1000},null,{','.join(map(json.dumps, texts))},{details}]"


class TestWhatIsAnEvent:
    def test_an_allowed_request(self, api, rooms):
        token = api.signed_in()["access_token"]
        answer = api.me(token)
        event = events(rooms, "access:allowed")[-1]
        assert (event.outcome, event.method, event.path) == ("success", "GET", "/users/me")
        assert event.actor == answer.json["id"]
        assert event.request_id == answer.headers["X-Request-ID"]
        assert event.client_id == "first-party"
        assert event.chain is not None

    def test_a_refused_permission_names_it(self, api, rooms):
        token = api.signed_in()["access_token"]
        answer = refused(api.http.get("/admin/logs", headers=bearer(token)), 403, "insufficient_scope")
        event = events(rooms, "access:denied")[-1]
        assert (event.outcome, event.reason, event.path) == ("denied", "insufficient_scope", "/admin/logs")
        assert event.details == {"status": 403, "permissions": ["logs:read"], "cause": "needs logs:read"}
        assert event.request_id == answer.headers["X-Request-ID"]

    @pytest.mark.parametrize("token", [None, "nonsense"])
    def test_a_request_without_a_good_token(self, api, rooms, token):
        api.http.get("/users/me", headers=bearer(token) if token else {})
        event = events(rooms, "access:denied")[-1]
        assert event.reason == ("invalid_token" if token else "authentication_required")
        assert event.actor is None

    def test_each_grant_s_token(self, api, rooms, confidential):
        tokens = api.signed_in()
        api.refresh(tokens["refresh_token"])
        api.token(confidential, grant_type="client_credentials")
        found = events(rooms, "token:issued")
        assert [event.details["grant_type"] for event in found] == [
            "password",
            "refresh_token",
            "client_credentials",
        ]
        assert [event.client_id for event in found] == ["first-party", "first-party", "backend"]
        assert found[0].actor == found[0].target == found[1].actor
        assert "posts:create" in found[2].details["scope"]

    def test_a_replay_within_the_grace_is_a_token_too(self, api, rooms):
        tokens = api.signed_in()
        api.refresh(tokens["refresh_token"])
        api.refresh(tokens["refresh_token"])
        assert len(events(rooms, "token:issued")) == 3

    def test_a_failed_sign_in_is_one_event(self, api, rooms):
        user = api.register()
        api.http.post("/auth/login", json={"login": "ann", "password": "wrong wrong"})
        found = [event for event in events(rooms) if event.outcome == "denied"]
        assert [(event.event, event.reason, event.target) for event in found] == [
            ("login:failed", "invalid_credentials", user["id"])
        ]

    @pytest.mark.parametrize(
        ("form", "reason"),
        [
            ({"grant_type": "refresh_token", "refresh_token": "rt_nonsense"}, "invalid_grant"),
            ({"grant_type": "client_credentials"}, "invalid_client"),
        ],
    )
    def test_a_refused_token(self, api, rooms, form, reason):
        api.token(client_id="first-party", **form)
        event = events(rooms, "token:denied")[-1]
        assert (event.reason, event.details["grant_type"]) == (reason, form["grant_type"])

    @pytest.mark.parametrize("path", ["/nowhere", "/users/me?x=1"])
    def test_a_mistake_is_no_denial(self, api, rooms, path):
        token = api.signed_in()["access_token"]
        assert api.http.get(path, headers=bearer(token)).status_code in {404, 422}
        assert not [event for event in events(rooms) if event.outcome == "denied"]

    def test_no_secret_is_in_any_event(self, api, rooms, confidential):
        tokens = api.signed_in()
        api.refresh(tokens["refresh_token"])
        api.token(confidential, grant_type="client_credentials")
        api.token(("backend", "not the secret"), grant_type="client_credentials")
        api.http.get(f"/users/me?access_token={tokens['access_token']}")
        text = json.dumps([(event.path, event.details, event.reason, event.target) for event in events(rooms)])
        for secret in (
            PASSWORD,
            confidential[1],
            "not the secret",
            tokens["access_token"],
            tokens["refresh_token"],
        ):
            assert secret not in text

    def test_a_path_of_odd_characters(self, api, rooms):
        api.http.get("/roles/%00%0a%ff%E2%80%8B" + "x" * 400, headers=bearer("nonsense"))
        path = events(rooms, "access:denied")[-1].path
        assert path.isprintable()
        assert len(path) == 255


class TestCounts:
    def test_they_are_right_to_the_event(self, api, rooms, confidential):
        user = api.signed_in()["access_token"]
        admin = api.login("admin", "first admin of the tests")["access_token"]
        for _ in range(3):
            api.http.get("/admin/keys", headers=bearer(admin))
        for _ in range(2):
            api.http.get("/admin/keys", headers=bearer(user))
        for _ in range(4):
            api.token(confidential, grant_type="client_credentials")
        found = totals(rooms)
        assert found[Measure.ALLOWED, "keys:read", ""] == 3
        assert found[Measure.DENIED, "keys:read", ""] == 2
        assert found[Measure.DENIAL, "GET /admin/keys", "insufficient_scope"] == 2
        assert found[Measure.TOKEN, "client_credentials", "backend"] == 4
        assert found[Measure.TOKEN, "password", "first-party"] == 2
        assert {window: totals(rooms, window) for window in usage.WINDOWS} == dict.fromkeys(usage.WINDOWS, found)

    def test_an_old_count_leaves_its_window(self, rooms):
        now = 1_800_000_000
        assert usage.begin_of("1h", now) <= now - 3600
        assert usage.begin_of("1h", now) > now - 3660
        assert usage.begin_of("24h", now) > now - 86_400 - 3600

    def test_purge_leaves_what_a_window_can_reach(self, api, rooms, monkeypatch):
        api.me(api.signed_in()["access_token"])
        before = totals(rooms)
        rooms.database.write(usage.purge)
        assert totals(rooms) == before
        monkeypatch.setattr(usage, "KEPT", {60: -120, 3600: -7200})
        rooms.database.write(usage.purge)
        assert rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(UsageCount))) == 0

    def test_allowed_requests_are_counted_though_not_kept(self, apps, api_of):
        app = apps(audit_access="denied")
        api, rooms = api_of(app), rooms_of(app)
        token = api.signed_in()["access_token"]
        api.http.post("/posts", json={"title": "t", "body": "b"}, headers=bearer(token))
        assert totals(rooms)[Measure.ALLOWED, "posts:create", ""] == 1
        assert not events(rooms, "access:allowed")
        assert events(rooms, "token:issued")


class TestCarrying:
    def test_a_batch_that_was_carried_and_not_deleted_is_not_carried_twice(self, api, rooms):
        """As after a kill between the commit and the deletion."""
        api.me(api.signed_in()["access_token"])
        for bucket in rooms.store.buckets:
            items = raw_redis(rooms.store).xrange(trails.events_key(bucket))
            if items:
                rooms.database.write(lambda tx, b=bucket, items=items: rooms.trail._carry_from(tx, b, items))
        before = totals(rooms), len(events(rooms))
        assert waiting(rooms) == 0
        api.me(api.login()["access_token"])
        after = totals(rooms), len(events(rooms))
        assert after[1] == before[1] + 3  # session:started, token:issued, access:allowed
        assert after[0][Measure.TOKEN, "password", "first-party"] == 2

    def test_several_at_once(self, apps, api, rooms):
        token = api.signed_in()["access_token"]
        for _ in range(30):
            api.me(token)
        drainers = [rooms.trail, *(rooms_of(apps()).trail for _ in range(3))]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda trail: trail.drain(limit=10), drainers * 3))
        assert len(events(rooms, "access:allowed")) == 30

    def test_what_is_carried_stands_in_the_order_of_time(self, api, rooms):
        """So each index of it grows at its end: a page for each event cost three times what the rest does."""
        token = api.signed_in()["access_token"]
        ids, requests, seen = [], [], {event.id for event in events(rooms)}
        for _ in range(3):
            for _ in range(5):
                api.me(token)
            batch = [event for event in events(rooms) if event.id not in seen]
            seen |= {event.id for event in batch}
            ids += sorted(event.id for event in batch)
            requests += sorted(event.request_id for event in batch)
        assert ids == sorted(ids)
        assert requests == sorted(requests)
        assert len(set(requests)) == 15
        assert {len(each) for each in requests} == {32}

    def test_an_unreadable_event_stops_nothing(self, api, rooms):
        rooms.feed.sync()
        rooms.trail.append("{", "[]", '["of a later version"]')
        api.me(api.signed_in()["access_token"])
        assert len(events(rooms, "access:allowed")) == 1
        assert waiting(rooms) == 0

    def test_what_fits_into_no_column_keeps_nothing_else_back(self, api, rooms):
        rooms.feed.sync()
        rooms.trail.append(stranger(event="x" * 300), stranger(reason="a\0b"), stranger(reason=5))
        api.me(api.signed_in()["access_token"])
        assert len(events(rooms, "access:allowed")) == 1
        assert waiting(rooms) == 0
        taken = [event for event in events(rooms) if event.request_id == "stranger"]
        assert len(taken) == (2 if rooms.database.engine.dialect.name == "sqlite" else 0)  # it takes any text

    @pytest.mark.parametrize(
        "values",
        [
            {"details": '{"a":1e-7,"b":1e16,"c":[1.50],"d":1180591620717411303424}'},
            {"details": '{"ü":"\\u0001\\u007f\\u2028\\ud83d\\ude00/\\/","B":true,"a":{"z":null,"y":-1}}'},
            {"details": "[]", "at": "true"},
            {"details": '{"a":1,"a":2}', "at": "-1"},
        ],
    )
    def test_what_a_stranger_wrote_verifies(self, rooms, values):
        rooms.feed.sync()
        rooms.trail.append(stranger(**values), stranger())
        assert len(events(rooms, "strange")) == 2
        before = GENESIS
        for row in rooms.database.read(lambda tx: list(Log(tx).events())):
            before = before if row[1] > 1 else GENESIS
            assert fits(before, row)
            before = row[2]

    def test_statements_are_as_many_whatever_was_said_of_how_many_clients(self, app, rooms, queries):
        rooms.feed.sync()

        def statements(*clients):
            rooms.trail.append(*(stranger(event="token:issued", client=c, details=ISSUED) for c in clients))
            with queries(app) as counter:
                rooms.trail.drain_all()
            assert waiting(rooms) == 0
            return counter.count

        statements("first")
        one = statements("a")
        assert statements(*(f"c{n}" for n in range(40)), *"aab") == one
        assert {key[2]: n for key, n in totals(rooms).items()} == {
            "first": 1,
            "a": 3,
            "b": 1,
            **{f"c{n}": 1 for n in range(40)},
        }

    def test_the_round_trip_that_writes_also_tells_whether_the_feed_moved(self, rooms):
        rooms.feed.sync()
        known = rooms.feed.known()
        event = rooms.trail.describe(Event.ACCESS_ALLOWED)
        assert rooms.trail.witness(known, event)
        rooms.feed.change(lambda tx, change: change.note("token", "some"))
        assert not rooms.trail.witness(known, event)
        assert waiting(rooms) == 1


class TestOutages:
    def test_nothing_is_let_in_unrecorded(self, apps, api_of, own_redis):
        app = apps(redis_url=own_redis.url())
        api = api_of(app)
        token = api.signed_in()["access_token"]
        assert api.me(token).status_code == 200
        own_redis.stop(kill=True)
        refused(api.me(token), 503, "store_unavailable")

    def test_a_denial_goes_into_sql_where_redis_is_away(self, apps, api_of, own_redis):
        app = apps(redis_url=own_redis.url())
        api, rooms = api_of(app), rooms_of(app)
        api.signed_in()
        own_redis.stop(kill=True)
        refused(api.http.get("/users/me"), 401, "authentication_required")
        own_redis.start()
        rooms.feed.sync()
        assert events(rooms, "access:denied")[-1].reason == "authentication_required"
        assert totals(rooms)[Measure.DENIAL, "GET /users/me", "authentication_required"] == 1

    def test_a_full_stream_refuses_rather_than_forgets(self, api, rooms, monkeypatch):
        tokens = api.signed_in()

        def may_wait(most):
            monkeypatch.setattr(trails, "FULL", most)
            monkeypatch.setattr("tokenserver.tokens.refresh_token.FULL", most)

        may_wait(0)  # as if each stream held as many as it may
        refused(api.me(tokens["access_token"]), 503, "overloaded")
        refused(api.refresh(tokens["refresh_token"]), 503, "overloaded")
        may_wait(1)
        rooms.trail.drain_all()
        assert api.me(tokens["access_token"]).status_code == 200
        rooms.trail.drain_all()
        assert api.refresh(tokens["refresh_token"]).status_code == 200
