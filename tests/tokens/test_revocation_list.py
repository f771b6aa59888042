"""The revocation list as the server publishes it: what is in it, when it is made, and when there is none."""

import time
from datetime import timedelta
from itertools import count
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import update

from tests.redis_access import raw_redis
from tests.revocation_lists import PATH, listed, made_a_second_ago, read, verifier_of
from tokenserver.app import rooms_of
from tokenserver.identity.people import ACTIVE, DISABLED
from tokenserver.identity.status import change_status
from tokenserver.storage.feed import Entry, Kind
from tokenserver.storage.sql import utc_now
from tokenserver.tokens import revocation_list
from tokenserver.tokens.models import Session
from tokenserver.tokens.sessions import EndReason
from tokenserver.verify.compact import parse
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.list_token import TYPES
from tokenserver.verify.revoked import digest

PASSWORD = "correct horse 7 battery"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture
def one_moment(monkeypatch):
    """All lists of a test are of one moment, so that none differs from another by that."""
    monkeypatch.setattr(revocation_list, "TTL", 10**9)


def claims_of(api, token):
    return verifier_of(api.http).verify(token)


def set_status(rooms, user_id, status):
    rooms.feed.change(
        lambda tx, change: change_status(
            tx,
            change,
            user_id,
            status,
            permissions=frozenset(),
            people=rooms.people,
            managers=rooms.rights,
            sessions=rooms.sessions,
        )
    )


def fetch(app, etag=None):
    made_a_second_ago(app)
    return app.test_client().get(PATH, headers={"If-None-Match": etag} if etag else {})


class TestTheDocument:
    def test_headers(self, client):
        response = client.get(PATH)
        assert response.status_code == 200
        assert response.mimetype == "application/revocation-list+jwt"
        assert response.headers["Cache-Control"] == "public, max-age=1"
        assert response.headers["ETag"].startswith('W/"')

    def test_it_names_no_user(self, app, api):
        """Who reads it, and everybody may, can't find out whose account was disabled."""
        claims = claims_of(api, api.signed_in()["access_token"])
        set_status(rooms_of(app), UUID(claims.sub), DISABLED)
        revoked = read(api.http).revoked
        assert (set(revoked.session), set(revoked.family)) == ({digest(claims.sid)}, {digest(claims.raw["fam"])})
        assert (revoked.token, revoked.client, revoked.everything) == ({}, {}, 0)

    def test_moments_are_those_of_the_revocations(self, api):
        tokens = api.signed_in()
        before = time.time_ns() // 1_000_000
        api.revoke(tokens["access_token"])
        after = time.time_ns() // 1_000_000
        name = digest(claims_of(api, tokens["access_token"]).jti)
        assert before <= read(api.http).revoked.token[name] <= after

    def test_what_is_too_old_to_matter_is_gone(self, rooms, client):
        """Processes forget cutoffs now and then; the list has none that no living token could meet."""
        read(client)  # from here on what is added here stays
        rooms.collaborators.revocation._pruned_at = time.time_ns() // 1_000_000  # it forgets nothing just now
        keep_ms, now_ms = rooms.feed.retention_ms, time.time_ns() // 1_000_000
        for name, at in (("old", now_ms - keep_ms - 20_000), ("new", now_ms - keep_ms + 60_000)):
            rooms.collaborators.revocation._apply(Entry(Kind.TOKEN, name, at))
        made_a_second_ago(client.application)
        assert set(read(client).revoked.token) == {digest("new")}

    def test_it_expires_when_the_last_token_that_it_could_be_about_has(self, rooms, client):
        found = read(client)
        assert found.exp - found.iat == rooms.settings.access_token_ttl + 120
        assert time.time() - found.iat < 60
        assert found.ttl == 10

    def test_sessions_that_expired_are_kept_while_their_tokens_live(self, app, api):
        """So that they end with their user, and are listed, although they ended by themselves before."""
        rooms = rooms_of(app)
        token = api.signed_in()["access_token"]
        just_now = utc_now() - timedelta(seconds=1)
        rooms.database.write(lambda tx: tx.execute(update(Session).values(expires_at=just_now)))
        rooms.sessions.purge()
        set_status(rooms, UUID(claims_of(api, token).sub), DISABLED)
        assert listed(api, token)


class TestWhenItIsMade:
    def test_unchanged_is_304(self, app, one_moment):
        first = fetch(app)
        again = fetch(app, first.headers["ETag"])
        assert again.status_code == 304
        assert again.data == b""
        assert again.headers["ETag"] == first.headers["ETag"]

    def test_any_revocation_changes_it(self, app, api, one_moment):
        tokens = api.signed_in()
        first = fetch(app)
        api.revoke(tokens["access_token"])
        assert fetch(app, first.headers["ETag"]).status_code == 200

    def test_every_process_makes_the_same(self, apps, api_of, one_moment):
        here, there = apps(), apps()
        etag = fetch(here).headers["ETag"]
        assert fetch(there, etag).status_code == 304
        tokens = api_of(there).signed_in()
        api_of(there).revoke(tokens["access_token"])
        changed = fetch(here, etag)
        assert changed.status_code == 200
        assert fetch(there, changed.headers["ETag"]).status_code == 304

    def test_a_new_moment_makes_a_new_one(self, app, monkeypatch):
        """Else nobody could tell a list of which nothing is new from one that is withheld."""
        etag = fetch(app).headers["ETag"]
        monkeypatch.setattr(revocation_list, "TTL", 10**8)
        assert fetch(app, etag).status_code == 200

    def test_a_new_key_signs_it_again(self, tmp_path, apps, one_moment):
        app = apps(keys_dir=tmp_path / "keys")
        rooms = rooms_of(app)
        rooms.ensure_keys()
        etag = fetch(app).headers["ETag"]
        rooms.keys.rotate(emergency=True)
        response = fetch(app, etag)
        assert response.status_code == 200
        assert rooms.keys.find(parse(response.text, TYPES).header.kid)

    def test_cost(self, app, api, queries, round_trips, monkeypatch):
        """One round trip and no SQL when it was not asked for within the second; nothing at all within it."""
        fetch(app)
        with queries(app) as statements, round_trips() as trips:
            fetch(app)
        assert (statements.count, trips.count) == (0, 1)
        monkeypatch.setattr(revocation_list, "REUSED", 3600)
        with queries(app) as statements, round_trips() as trips:
            assert app.test_client().get(PATH).status_code == 200
        assert (statements.count, trips.count) == (0, 0)


class TestWhenThereIsNone:
    def test_redis_was_emptied(self, app, api):
        """Marker missing: rebuilt from SQL first, and never an empty list."""
        token = api.signed_in()["access_token"]
        api.revoke(token)
        raw_redis(rooms_of(app).store).flushdb()
        assert listed(api, token)

    def test_redis_is_away(self, own_redis, apps):
        lonely = apps(redis_url=own_redis.url())
        assert fetch(lonely).status_code == 200
        own_redis.stop()
        response = fetch(lonely)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert response.json["error"] == "temporarily_unavailable"
        assert "revoked" not in response.text


class World:
    """Users, clients and tokens of every kind on one server, and ways to revoke."""

    numbers = count()

    def __init__(self, api) -> None:
        self.api = api
        self.rooms = rooms_of(api.http.application)
        self.number = next(self.numbers)
        self.users = [self.name("ann"), self.name("bob")]
        for user in self.users:
            api.register(user)
        self.clients = {}
        for word, grants in {
            "app": {"grant_types": ["password", "refresh_token"]},
            "pairwise": {"grant_types": ["password"], "subject_type": "pairwise"},
            "machine": {"grant_types": ["client_credentials", EXCHANGE]},
        }.items():
            row, secret = self.rooms.clients.create(
                client_id=self.name(word), client_name="", scope=["posts:create"], **grants
            )
            self.clients[word] = (row.client_id, secret)
        self.tokens = []
        self.refresh_tokens = []

    def name(self, word):
        return f"{word}{self.number}"

    def keep(self, response):
        if response.status_code == 200:
            self.tokens.append(response.json["access_token"])
            if "refresh_token" in response.json:
                self.refresh_tokens.append(response.json["refresh_token"])

    # What gives tokens

    def sign_in(self, which):
        form = {"grant_type": "password", "username": self.users[which % 2], "password": PASSWORD}
        auth = self.clients["pairwise" if which % 3 == 0 else "app"]
        self.keep(self.api.token(auth, **form))

    def machine(self, which):
        self.keep(self.api.token(self.clients["machine"], grant_type="client_credentials"))

    def refresh(self, which):
        if self.refresh_tokens:
            token = self.refresh_tokens[which % len(self.refresh_tokens)]
            self.keep(self.api.token(self.clients["app"], grant_type="refresh_token", refresh_token=token))

    def exchange(self, which):
        if self.tokens:
            form = {"subject_token": self.tokens[which % len(self.tokens)], "subject_token_type": ACCESS_TOKEN}
            self.keep(self.api.token(self.clients["machine"], grant_type=EXCHANGE, **form))

    # What takes them

    def revoke_token(self, which):
        if self.tokens:
            token = self.tokens[which % len(self.tokens)]
            for auth in self.clients.values():
                self.api.http.post("/oauth/revoke", data={"token": token}, auth=auth)

    def revoke_family(self, which):
        if self.refresh_tokens:
            token = self.refresh_tokens[which % len(self.refresh_tokens)]
            self.api.http.post("/oauth/revoke", data={"token": token}, auth=self.clients["app"])

    def log_out(self, which):
        if self.tokens:
            token = self.tokens[which % len(self.tokens)]
            self.api.http.post("/auth/logout", headers={"Authorization": f"Bearer {token}"})

    def end_sessions(self, which):
        user_id = self.user_id(which)
        self.rooms.feed.change(
            lambda tx, change: self.rooms.sessions.end(tx, change, user_id=user_id, reason=EndReason.REVOKED)
        )

    def disable(self, which):
        set_status(self.rooms, self.user_id(which), DISABLED)

    def enable(self, which):
        set_status(self.rooms, self.user_id(which), ACTIVE)

    def delete_client(self, which):
        client_id, _ = self.clients[sorted(self.clients)[which % 3]]

        def delete(tx, change):
            self.rooms.clients.delete(tx, change, client_id)
            self.rooms.sessions.end(tx, change, client_id=client_id, reason=EndReason.CLIENT_DELETED)

        if self.rooms.clients.find(client_id):
            self.rooms.feed.change(delete)

    def end_everything(self, which):
        self.rooms.feed.change(self.rooms.sessions.end_all)

    def take_roles(self, which):
        """What its holder may do changes, and the token lives on."""
        user_id = self.user_id(which)
        self.rooms.feed.change(lambda tx, change: self.rooms.rights.unassign(tx, change, user_id, "user"))

    def user_id(self, which):
        return self.rooms.people.find_by_login(self.users[which % 2]).id

    def is_refused_here(self, claims):
        try:
            self.rooms.active_tokens.judge(claims)
        except InvalidToken:
            return True
        return False

    def check(self):
        """Both judge alike, token by token."""
        made_a_second_ago(self.api.http.application)
        revoked, verifier = read(self.api.http).revoked, verifier_of(self.api.http)
        self.rooms.feed.sync()
        for token in self.tokens:
            claims = verifier.verify(token)
            assert revoked.hits(claims) == self.is_refused_here(claims)


STEPS = [
    "sign_in",
    "machine",
    "refresh",
    "exchange",
    "revoke_token",
    "revoke_family",
    "log_out",
    "end_sessions",
    "disable",
    "enable",
    "delete_client",
    "end_everything",
    "take_roles",
]


# Not made smaller when it fails: each step is a handful of requests, and sixteen can be read.
@hypothesis_settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), min_size=4, max_size=16))
def test_the_list_and_the_server_judge_alike(api, steps):
    world = World(api)
    for which in range(4):
        world.sign_in(which)
    world.machine(0)
    world.exchange(0)
    for step, which in steps:
        getattr(world, step)(which)
        world.check()
