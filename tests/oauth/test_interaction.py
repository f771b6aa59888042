"""Pending interactions: bound to their browser, bounded, and gone after an hour."""

from typing import Any

import pytest

from tests.conftest import Apps
from tests.redis_access import raw_redis
from tokenserver.app import rooms_of
from tokenserver.errors import StoreUnavailable, TooManyRequests
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.interaction import MAX_BYTES, Interaction, Interactions
from tokenserver.rooms import Rooms
from tokenserver.web.cookies import new_cookie

BROWSER = new_cookie()
RESUME = "/oauth/authorize/resume?interaction={id}"
DATA = {"scope": "openid", "nested": {"a": [1, None, "\u00e9"]}}


@pytest.fixture
def backend() -> str:
    return "sqlite"  # it is Redis that keeps them


def begin(interactions: Interactions, **data: Any) -> Interaction:
    return interactions.begin(BROWSER, resume=RESUME, client_id="app", data=DATA | data)


def test_its_browser_finds_it_and_no_other(rooms: Rooms, apps: Apps):
    """Nobody can hand somebody else a half-finished sign-in."""
    begun = begin(rooms.interactions)
    assert len(begun.id) == 43  # 256 bits
    assert begun.resume == f"/oauth/authorize/resume?interaction={begun.id}"
    other_process = rooms_of(apps()).interactions
    for interactions in (rooms.interactions, other_process):
        assert interactions.find(begun.id, BROWSER) == begun
        for browser in (None, new_cookie(), BROWSER[:-1], ""):
            assert interactions.find(begun.id, browser) is None
        for unknown in ("", new_cookie(), begun.id + "\n", begun.id[:-1], "*" * 43):
            assert interactions.find(unknown, BROWSER) is None


def test_it_can_be_replaced_until_it_ends(rooms: Rooms):
    interactions = rooms.interactions
    begun = begin(interactions)
    changed = Interaction(begun.id, begun.began_at, begun.resume, begun.client_id, {"consent": "allowed"})
    interactions.replace(changed, BROWSER)
    assert interactions.find(begun.id, BROWSER) == changed
    (key,) = (key for key in raw_redis(rooms.store).keys("*") if ":i:" in key)
    assert 3000 < raw_redis(rooms.store).ttl(key) <= 3600
    interactions.end(begun.id)
    interactions.replace(changed, BROWSER)
    assert interactions.find(begun.id, BROWSER) is None


def test_a_dump_of_redis_holds_nothing_to_go_on_with(rooms: Rooms):
    begun = begin(rooms.interactions)
    store = raw_redis(rooms.store)
    (key,) = (key for key in store.keys("*") if ":i:" in key)
    assert begun.id not in key
    assert BROWSER not in key + store.get(key)


def test_what_strangers_put_there_is_bounded(rooms: Rooms):
    begin(rooms.interactions, state="x" * (MAX_BYTES - 1000))
    with pytest.raises(InvalidRequest):
        begin(rooms.interactions, state="x" * MAX_BYTES)
    with pytest.raises(InvalidRequest):
        begin(rooms.interactions, state="\u00e9" * (MAX_BYTES // 2))

    def flood() -> None:
        for _ in range(rooms.settings.limit_authorize.quota + 20):  # some are given back meanwhile
            begin(rooms.interactions)

    with pytest.raises(TooManyRequests):
        flood()


@pytest.mark.parametrize(
    "resume",
    [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "https://evil.example",
        "",
        "x",
        "/a\r\nSet-Cookie: x=1",
    ],
)
def test_it_leads_nowhere_else(rooms: Rooms, resume: str):
    """CVE-2023-49438."""
    with pytest.raises(ValueError, match="not a path of this server"):
        rooms.interactions.begin(BROWSER, resume=resume, client_id=None, data={})


def test_redis_emptied_or_away(apps: Apps, own_redis: Any):
    rooms = rooms_of(apps(redis_url=own_redis.url()))
    begun = begin(rooms.interactions)
    own_redis.stop(kill=True)
    with pytest.raises(StoreUnavailable):
        rooms.interactions.find(begun.id, BROWSER)
    with pytest.raises(StoreUnavailable):
        begin(rooms.interactions)
    own_redis.start()
    assert rooms.interactions.find(begun.id, BROWSER) is None
    again = begin(rooms.interactions)
    assert rooms.interactions.find(again.id, BROWSER) == again
