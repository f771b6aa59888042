"""RFC 7240: the preference to wait, read out of whatever is sent."""

import pytest

from tokenserver.web.prefer import MAX_LENGTH, MOST, wait_of


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("wait=5", 5),
        ("Wait = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=5", 5),
        ("respond-async; x=1,wait=5; y=2", 5),
        ('note="a, wait=9", wait=5', 5),
        ("wait=5, wait=9", 5),  # section 2: the first counts
        ("wait=x, wait=9", 0),
        ("wait=0", 0),
        ("wait=007", 7),
        ("wait=" + "9" * 900, MOST),
        (None, 0),
        ("", 0),
        (",,;=,", 0),
        ("wait", 0),
        ("wait=", 0),
        ("wait=-1", 0),
        ("wait=+1", 0),
        ("wait=1.5", 0),
        ("wait=1_0", 0),
        ("wait=1e9", 0),
        ("wait=٥", 0),
        ("wait=5\x00", 0),
        ("\x00wait=5", 0),
        ("waiting=5", 0),
        ('wait="5', 0),
        ("wait=5," + " " * MAX_LENGTH, 0),
    ],
)
def test_seconds_rfc7240_4_3(field: str | None, seconds: int):
    assert wait_of(field) == seconds
