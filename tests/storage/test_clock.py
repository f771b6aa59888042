"""A clock is held against others: two agree, one is outvoted; a step shows at once."""

import time

import pytest

from tokenserver.errors import ClockWrong, StoreUnavailable
from tokenserver.storage.clock import LIMIT, Clock, skew


class Others:
    """What the other clocks say, in seconds from this one; None: can't be asked."""

    def __init__(self, **off):
        self.off = off

    def clock(self):
        return Clock({name: lambda name=name: self.ask(name) for name in self.off})

    def ask(self, name):
        if self.off[name] is None:
            raise StoreUnavailable(name)
        return time.time() + self.off[name]


@pytest.mark.parametrize(
    ("sql", "redis", "is_right"),
    [
        (0, 0, True),
        (LIMIT - 1, -(LIMIT - 1), True),
        (3600, 3600, False),
        (-3600, -3600, False),
        # One that agrees is enough: a store's clock is wrong, and every node would be outvoted by it.
        (3600, 0, True),
        (0, -3600, True),
        (3600, -3600, False),
        (None, 0, True),
        (None, 3600, False),
        (-3600, None, False),
    ],
)
def test_who_agrees(sql, redis, is_right):
    clock = Others(sql=sql, redis=redis).clock()
    clock.compare()
    if is_right:
        clock.require()
    else:
        with pytest.raises(ClockWrong, match=r"it is \d+\.\d s (ahead of|behind) that of (sql|redis)"):
            clock.require()


def test_while_nobody_can_be_asked_the_last_comparison_stands():
    others = Others(sql=0, redis=0)
    clock = others.clock()
    clock.compare()
    others.off = {"sql": None, "redis": None}
    clock.compare()
    clock.require()
    others.off = {"sql": 3600, "redis": 3600}
    clock.compare()
    others.off = {"sql": None, "redis": None}
    clock.compare()
    with pytest.raises(ClockWrong):
        clock.require()


def test_a_step_shows_before_the_next_comparison(monkeypatch):
    others = Others(sql=0)
    clock = others.clock()
    clock.compare()
    right = time.time
    for seconds in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: right() + seconds)
        with pytest.raises(ClockWrong, match="stepped"):
            clock.require()
        others.off = {"sql": -seconds}
        clock.compare()
        with pytest.raises(ClockWrong, match="that of sql"):
            clock.require()
        monkeypatch.setattr(time, "time", right)
        others.off = {"sql": 0}
        clock.compare()
        clock.require()


def test_a_worker_trusts_nothing_before_the_first_comparison():
    others = Others(sql=None)
    clock = others.clock()
    clock.require()  # commands and tests, which compare by themselves
    clock.watch()
    with pytest.raises(ClockWrong, match="not compared"):
        clock.require()
    others.off = {"sql": 0}
    deadline = time.monotonic() + 30
    while True:
        try:
            clock.require()
            break
        except ClockWrong:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_slow_answer_is_no_difference():
    def slow():
        time.sleep(0.2)
        there = time.time()
        time.sleep(0.2)
        return there

    assert skew(slow) == 0.0
