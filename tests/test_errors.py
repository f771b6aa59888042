"""The error tree."""

import pickle

import pytest

from tokenserver.errors import ClockWrong, FieldError, Invalid, StoreUnavailable, TooManyRequests
from tokenserver.oauth.errors import InvalidGrant
from tokenserver.tokens.key_files import RingUnusable


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("sql", "away"),
        ClockWrong("an hour ahead"),
        RingUnusable("no key", "make one"),
        Invalid([FieldError("name", "Too long.")], "Wrong.", code="wrong"),
        TooManyRequests(7),
        InvalidGrant(reason="reused", is_certain=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_another_process_is_as_it_was(error):
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert there.args == error.args
    assert vars(there) == vars(error)
