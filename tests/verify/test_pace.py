"""When a reader asks next: never on and on, and not all readers at the same moment."""

import pytest

from tokenserver.verify.pace import EARLIEST, MOST_PLAIN, SPACING, WAIT, Pace

INTERVAL = 5.0


def after(pace: Pace, *, wait: int = WAIT, took: float = 0.0, goes_on: bool = False, ttl: float = 10) -> float:
    return pace.after(wait=wait, took=took, goes_on=goes_on, ttl=ttl)


@pytest.mark.parametrize(("left", "wait"), [(120, WAIT), (20, 10), (19, 9), (2, 1), (1.9, 0), (0, 0), (-50, 0)])
def test_waits_no_longer_than_what_is_known_is_good(left: float, wait: int) -> None:
    assert Pace(INTERVAL).wait(left) == wait


@pytest.mark.parametrize("goes_on", [True, False])
def test_after_a_wait_it_asks_at_once(goes_on: bool) -> None:
    assert after(Pace(INTERVAL), took=WAIT / 2, goes_on=goes_on) == 0


def test_what_comes_without_waiting_is_spaced() -> None:
    """News in quick succession, as when much is revoked."""
    assert after(Pace(INTERVAL), took=0.25, goes_on=True) == SPACING - 0.25
    assert after(Pace(0.5), took=0.25, goes_on=True) == 0.25  # who wants to ask more often may


def test_who_was_turned_away_together_does_not_come_back_together() -> None:
    """As by a node that ends, or by one that is gone."""
    for pauses in (
        [after(Pace(INTERVAL)) for _ in range(100)],
        [Pace(INTERVAL).after_failure(wait=0) for _ in range(100)],
    ):
        assert min(pauses) >= EARLIEST * INTERVAL
        assert max(pauses) <= INTERVAL
        assert len(set(pauses)) > 90
    assert after(Pace(INTERVAL), ttl=1) <= 1


def test_waits_that_fail_are_tried_less_and_less() -> None:
    pace, plain = Pace(INTERVAL), 1
    for _ in range(10):
        assert pace.wait(100) == WAIT
        pace.after_failure(wait=WAIT)
        for _ in range(plain):
            assert pace.wait(100) == 0
            pace.after_failure(wait=0)  # what fails anyway says nothing about waiting
            assert pace.wait(100) == 0
            after(pace, wait=0)
        plain = min(2 * plain, MOST_PLAIN)
    # Until one succeeds.
    after(pace, took=WAIT)
    pace.after_failure(wait=WAIT)
    after(pace, wait=0)
    assert pace.wait(100) == WAIT
