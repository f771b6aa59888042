"""Whoever can write to Redis: what is read there is data, of which nothing runs and which lets nobody in."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Api
from tests.redis_access import raw_redis
from tokenserver.rooms import Rooms


@pytest.fixture
def backend() -> str:
    return "sqlite"  # it is Redis that is written to


class Bomb:
    """Makes a file when it is read by pickle."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


def test_a_pickle_in_every_value_is_bytes(api: Api, rooms: Rooms, tmp_path: Path):
    """Flask-Caching CVE-2021-33026. What SQL knows is put in its place; the rest fails closed."""
    file = tmp_path / "exploded"
    planted = pickle.dumps(Bomb(file))
    pickle.loads(planted)
    assert file.exists(), "the bomb is good"
    file.unlink()

    tokens = api.signed_in()
    api.http.get("/login")
    store = raw_redis(rooms.store)
    count = 0
    for key in store.keys("*"):
        fields = store.hkeys(key) if store.type(key) in {"hash", b"hash"} else ()
        count += len(fields)
        for field in fields:
            store.hset(key, field, planted)
    assert count >= 5
    assert api.me(tokens["access_token"]).status_code == 200
    assert api.refresh(tokens["refresh_token"]).status_code == 200
    for path in ("/login", "/device", "/readyz"):
        api.http.get(path)
    assert not file.exists()
