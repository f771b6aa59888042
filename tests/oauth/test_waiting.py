"""Who has the revocation list may wait for the next one (RFC 7240), and is in nobody's way meanwhile."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from tests.revocation_lists import PATH
from tokenserver.app import rooms_of
from tokenserver.cli.crew import in_turn
from tokenserver.cli.workers import FINISH_SECONDS, REQUEST_SECONDS
from tokenserver.errors import ClockWrong
from tokenserver.oauth.endpoints.waiting import MOST_SECONDS, waiting
from tokenserver.storage.feed import Kind
from tokenserver.tokens import revocation_list
from tokenserver.tokens.revocation_watch import LOOK_SECONDS, Watch

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATIENCE = 30
LONG = {"Prefer": f"wait={MOST_SECONDS}"}


@pytest.fixture(autouse=True)
def one_moment(monkeypatch):
    """All lists of a test are of one moment, so that none differs from another by that."""
    monkeypatch.setattr(revocation_list, "TTL", 10**9)


class Process:
    """A worker process' application with its watch, and readers that ask it, each in a thread."""

    def __init__(self, app, pool, **options):
        self.app = app
        self.rooms = rooms_of(app)
        self.is_ending = False
        self.watch = Watch(self.rooms.revocation_list, is_ending=lambda: self.is_ending, **options)
        self.pool = pool
        self.http = Client(waiting(in_turn(app.wsgi_app, 1), self.watch), Response)

    def ask(self, etag=None, method="GET", body=None, **headers):
        known = {"If-None-Match": etag} if etag else {}
        return self.http.open(PATH, method=method, data=body, headers=headers | known)

    def etag(self):
        return f'W/"{self.rooms.revocation_list.newest().etag}"'

    def waiters(self, count=1, **headers):
        """Readers that have the newest list, once they wait for the next one."""
        etag, wanted = self.etag(), self.seated + count
        asked = [self.pool.submit(self.ask, etag, **(LONG | headers)) for _ in range(count)]
        until(lambda: self.seated == wanted)
        return asked

    @property
    def seated(self):
        return sum(reader.edition is not None for reader in tuple(self.watch._readers))

    def revoke(self):
        self.rooms.feed.change(lambda _tx, change: change.note(Kind.SESSION, uuid.uuid4()))


@pytest.fixture
def process(apps):
    made = []
    with ThreadPoolExecutor(40) as pool:

        def start(apart=False, **options):
            made.append(Process(apps(**({"redis_url": apart} if apart else {})), pool, **options))
            return made[-1]

        yield start
        for each in made:  # whoever waits yet is let go
            each.is_ending = True


def until(holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def applied(response):
    return response.headers.get("Preference-Applied")


@contextmanager
def the_wait_is_long(monkeypatch):
    """So that what is answered was not answered because the time was over."""
    monkeypatch.setattr("tokenserver.oauth.endpoints.waiting.MOST_SECONDS", 60)
    yield {"Prefer": "wait=60"}


def test_nobody_waits_longer_than_a_list_is_fresh(process):
    """Whatever they prefer: whoever went away meanwhile would keep a place."""
    response = process().ask(Prefer="wait=99999")  # without a list, so it is answered at once
    assert (response.status_code, applied(response)) == (200, "wait=10")


def test_who_waits_is_answered_when_something_is_revoked(process, monkeypatch):
    """In this process or in another one. RFC 7240 sections 3 and 4.3."""
    here, there = process(), process()
    with the_wait_is_long(monkeypatch) as long:
        for revoking in (here, there):
            etag = here.etag()
            (asked,) = here.waiters(**long)
            revoking.revoke()
            response = asked.result(PATIENCE)
            assert (response.status_code, applied(response)) == (200, "wait=60")
            assert response.headers["ETag"] != etag
            assert response.headers["ETag"] == there.etag()


def test_who_waited_long_enough_is_answered(process):
    here = process()
    response = here.ask(here.etag(), Prefer="wait=1")
    assert (response.status_code, applied(response)) == (304, "wait=1")
    assert "Prefer" in response.vary


def test_who_has_another_list_or_none_is_answered_at_once(process, monkeypatch):
    here, there = process(), process()
    with the_wait_is_long(monkeypatch) as long:
        old = here.etag()
        there.revoke()  # the look of this process is older than that
        response = here.ask(old, **long)
        assert (response.status_code, response.headers["ETag"]) == (200, there.etag())
        for etag in (old, None, 'W/"made-up", "x"'):
            response = here.ask(etag, **long)
            assert (response.status_code, applied(response)) == (200, "wait=60")


def test_what_is_no_news_calls_nobody(process, monkeypatch):
    """A new moment, users' cutoffs, changes of other things: the list says the same of what was revoked."""
    here = process()
    with the_wait_is_long(monkeypatch) as long:
        (asked,) = here.waiters(**long)
        before = here.rooms.revocation_list.newest()
        monkeypatch.setattr(revocation_list, "TTL", 10**8)
        for kind in (Kind.USER, Kind.ROLES_CHANGED):
            here.rooms.feed.change(lambda _tx, change, kind=kind: change.note(kind, uuid.uuid4()))
        after = here.rooms.revocation_list.newest()
        assert before.etag != after.etag
        assert before.edition == after.edition
        assert not asked.done()
        here.revoke()
        assert asked.result(PATIENCE).status_code == 200


def test_who_waits_takes_no_turn_from_others(process):
    here = process()
    asked = here.waiters(20)
    assert here.http.get("/healthz").status_code == 200
    assert here.ask().status_code == 200
    assert not any(each.done() for each in asked)
    here.revoke()
    assert {each.result(PATIENCE).status_code for each in asked} == {200}
    # Shorter than what hangs up, and than a node takes to end.
    assert MOST_SECONDS < REQUEST_SECONDS
    assert MOST_SECONDS * 0.8 <= FINISH_SECONDS


def test_cost(process, round_trips, queries):
    """However many wait: as many round trips as looks, which time alone bounds; no SQL; none when nobody waits."""
    here, there = process(), process()
    here.waiters(1)
    with queries(here.app) as statements, round_trips() as trips:
        began = time.monotonic()
        here.waiters(30)
        until(lambda: trips.count >= 5)
        looks = (time.monotonic() - began) / LOOK_SECONDS
        assert trips.count <= looks + 3
        assert statements.count == 0
    there.revoke()
    until(lambda: not here.watch._somebody.is_set())  # its thread sleeps until the next reader comes
    assert not here.watch._readers


def test_at_most_so_many_wait(process):
    """The others are answered at once, and not told that they waited."""
    here = process(places=2)
    asked = here.waiters(2)
    response = here.ask(here.etag(), **LONG)
    assert (response.status_code, applied(response)) == (304, None)
    assert applied(here.ask(**LONG)) == LONG["Prefer"]  # who has no list needn't wait
    here.revoke()
    assert {applied(each.result(PATIENCE)) for each in asked} == {LONG["Prefer"]}
    assert len(here.waiters(2)) == 2


def test_nobody_waits_for_a_process_that_ends(process, monkeypatch):
    here = process()
    with the_wait_is_long(monkeypatch) as long:
        asked = here.waiters(3, **long)
        here.is_ending = True
        for each in asked:
            response = each.result(PATIENCE)
            assert (response.status_code, applied(response)) == (304, None)
            assert response.headers["Connection"] == "close"
        response = here.ask(here.etag(), **long)
        assert (response.status_code, applied(response)) == (304, None)


def test_nobody_waits_where_nothing_is_known(own_redis, process, monkeypatch):
    """503 at once, also for those that waited when Redis went away, or the clock went wrong."""
    fault = []

    def require():
        if fault:
            raise ClockWrong("by an hour")

    here = process(apart=own_redis.url(), require=require)
    with the_wait_is_long(monkeypatch) as long:
        (asked,) = here.waiters(**long)
        fault.append(1)
        assert applied(asked.result(PATIENCE)) is None
        fault.clear()
        (asked,) = here.waiters(**long)
        own_redis.stop()
        assert applied(asked.result(PATIENCE)) is None
        here.rooms.revocation_list._looked_at = float("-inf")
        response = here.ask('W/"x"', **long)
        assert (response.status_code, applied(response)) == (503, None)


@pytest.mark.parametrize(
    ("method", "body", "prefer"),
    [
        ("GET", None, ""),
        ("GET", None, "wait=0"),
        ("GET", None, "wait=-5"),
        ("GET", None, "respond-async"),
        ("GET", "x", "wait=10"),
        ("HEAD", None, "wait=10"),
        ("POST", None, "wait=10"),
    ],
)
def test_whatever_else_is_asked_is_answered_at_once(process, method, body, prefer):
    here = process()
    response = here.ask(here.etag(), method, body, Prefer=prefer)
    assert response.status_code == (405 if method == "POST" else 304)
    assert here.watch._thread is None
    assert applied(response) is None


def test_another_wsgi_server_lets_nobody_wait(app):
    """`wsgi.py`: its threads are few."""
    etag = f'W/"{rooms_of(app).revocation_list.newest().etag}"'
    response = Client(app.wsgi_app, Response).get(PATH, headers=LONG | {"If-None-Match": etag})
    assert (response.status_code, applied(response)) == (304, None)
    assert "Prefer" in response.vary


def test_no_page_makes_browsers_wait(process):
    """`Prefer` needs a preflight (Fetch), and this endpoint answers none."""
    here = process()
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    response = here.http.options(PATH, headers=headers | {"Access-Control-Request-Headers": "prefer"})
    assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]


def test_many_revocations_make_one_list_a_second(process):
    """As many as may be made of a list that has grown large."""
    here = process()
    first = here.rooms.revocation_list.newest().edition
    stop = threading.Event()

    def revoke():
        while not stop.wait(0.02):
            here.revoke()

    began = time.monotonic()
    revoking = here.pool.submit(revoke)
    try:
        for _ in range(3):
            assert here.ask('W/"another"', **LONG).status_code == 200
    finally:
        stop.set()
    revoking.result(PATIENCE)
    editions = here.rooms.revocation_list._made.issue.edition - first
    assert editions <= (time.monotonic() - began) / revocation_list.REUSED + 1
