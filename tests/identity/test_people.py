"""The people in SQL: what two of them can't have at once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from tests.conftest import PASSWORD
from tokenserver.errors import Conflict
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (("ann", "ann@example.org"), ("ANN", "other@example.org"), "username_taken"),
        (("ann", "ann@example.org"), ("bob", "Ann@Example.org"), "email_taken"),
    ],
)
def test_name_that_is_taken_between_the_look_and_the_write(rooms: Rooms, first: Any, second: Any, code: str):
    """The unique index decides, and its verdict is a conflict as if it had been seen in time."""
    users = [rooms.people.prepare(username=u, email=e, password=PASSWORD) for u, e in (first, second)]
    written = Event()

    def add_slowly(tx: Transaction) -> None:
        rooms.people.add(tx, users[0])
        written.set()
        # Long enough for the other one to look, and to wait for this commit.
        Event().wait(0.3)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(rooms.database.write, add_slowly)
        assert written.wait(30)
        with pytest.raises(Conflict) as caught:
            rooms.database.write(lambda tx: rooms.people.add(tx, users[1]))
        slow.result()
    assert caught.value.code == code
    assert rooms.people.find_by_login("ann") is not None
    assert rooms.people.find_by_login("bob") is None
