"""Who looks after the workers; they are shell scripts here, and nobody loads anything."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import wait_until
from tokenserver.cli import supervisor
from tokenserver.cli.loader import LoaderEnded
from tokenserver.cli.phase import Phase
from tokenserver.cli.supervisor import Supervisor
from tokenserver.errors import TokenserverError

STAYS = "exec sleep 600"
HEEDS_NOBODY = "trap '' TERM; exec sleep 600"


class Loaders:
    """All loaders of a server, one after the other, and what they forked. `scripts`: of the first workers; the last
    one is that of all others. `broken`: so many forks don't come about.
    """

    def __init__(self, *scripts: str, broken: int = 0) -> None:
        self.phase = Phase()
        self.pids: list[int] = []
        self.made = 1
        self.open = True
        self._scripts = list(scripts)
        self._broken = broken

    def fork(self, _work: object, _arguments: tuple[Any, ...]) -> int:
        assert self.open
        if self._broken:
            self._broken -= 1
            raise LoaderEnded(private="killed")
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.pids.append(os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ, setpgroup=0))
        return self.pids[-1]

    def again(self) -> "Loaders":
        self.made += 1
        self.open = True
        return self

    def close(self) -> None:
        self.open = False

    @property
    def alive(self) -> list[int]:
        return [pid for pid in self.pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def served(loaders: Loaders, story: Callable[[], object], *, count: int = 2, **options: Any) -> float:
    """Seconds that the server ran. `story`: what happens to it; after that it is asked to end."""
    given: dict[str, Any] = {"drain_delay": 0, "finish_seconds": 30, "own_cores": False} | options
    made = Supervisor(print, (), loader=loaders, workers=count, **given)
    failures: list[BaseException] = []
    is_over = threading.Event()

    def tell() -> None:
        try:
            story()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)
        if not is_over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=tell)
    started = time.monotonic()
    try:
        thread.start()
        made.serve()
    finally:
        is_over.set()
        took = time.monotonic() - started
        thread.join()
        left = loaders.alive
        for pid in left:
            os.killpg(pid, signal.SIGKILL)
    assert failures == []
    assert left == []
    assert made.is_ending
    assert loaders.phase.is_stopping
    assert not loaders.open
    return took


def test_who_is_killed_is_replaced_again_and_again(caplog):
    """By one of the same place, before any has loaded and however soon."""
    loaders = Loaders(STAYS)

    def story() -> None:
        for number in range(3):
            wait_until(lambda number=number: len(loaders.pids) == 2 + number)
            os.kill(loaders.pids[-1], signal.SIGKILL)
        wait_until(lambda: len(loaders.pids) == 5)
        assert loaders.pids[0] in loaders.alive

    with caplog.at_level(logging.ERROR, "tokenserver.workers"):
        served(loaders, story)
    assert loaders.made == 4
    assert [record.getMessage() for record in caplog.records] == ["worker 2 ended: SIGKILL"] * 3


def test_all_who_are_killed_at_once_are_replaced():
    loaders = Loaders(STAYS)

    def story() -> None:
        wait_until(lambda: len(loaders.pids) == 3)
        for pid in loaders.pids[:]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(loaders.alive) == 3 and len(loaders.pids) == 6)

    served(loaders, story, count=3)


def test_who_ends_before_any_has_loaded_ends_the_server():
    loaders = Loaders(STAYS, "exit 3")
    with pytest.raises(TokenserverError, match="the workers end as soon as they start") as caught:
        served(loaders, lambda: wait_until(lambda: not loaders.alive and len(loaders.pids) == 2))
    assert caught.value.__cause__ is None
    assert loaders.alive == []
    assert loaders.phase.is_stopping


def test_who_ends_by_itself_is_replaced_once():
    """And then no more, if the next one ends soon, too."""
    loaders = Loaders(STAYS, "exit 3", "exit 4")
    loaders.phase.loaded()
    with pytest.raises(TokenserverError):
        served(loaders, lambda: wait_until(lambda: not loaders.alive and len(loaders.pids) == 3))
    assert loaders.made == 2


def test_who_ends_later_is_replaced_again(monkeypatch):
    monkeypatch.setattr(supervisor, "SOON", 0.1)
    loaders = Loaders("sleep 0.2", "sleep 0.2", "sleep 0.2", STAYS)
    loaders.phase.loaded()
    served(loaders, lambda: wait_until(lambda: len(loaders.pids) == 4), count=1)


def test_a_loader_that_is_killed_is_tried_again():
    loaders = Loaders(STAYS, broken=2)
    served(loaders, lambda: wait_until(lambda: len(loaders.pids) == 2))
    assert loaders.made == 3


def test_loaders_that_are_all_killed_end_the_server_and_its_workers():
    loaders = Loaders(STAYS)

    def story() -> None:
        wait_until(lambda: len(loaders.pids) == 2)
        loaders._broken = supervisor.TRIES
        os.kill(loaders.pids[0], signal.SIGKILL)
        wait_until(lambda: not loaders.alive)

    with pytest.raises(LoaderEnded):
        served(loaders, story)
    assert loaders.alive == []


def test_it_drains_for_as_long_as_it_was_told():
    """And replaces nobody meanwhile."""
    loaders = Loaders(STAYS)

    def story() -> None:
        wait_until(lambda: len(loaders.pids) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: loaders.phase.is_draining)
        os.kill(loaders.pids[0], signal.SIGKILL)
        time.sleep(0.5)
        assert loaders.pids[1] in loaders.alive
        assert not loaders.phase.is_stopping
        wait_until(lambda: loaders.phase.is_stopping)

    assert 1 <= served(loaders, story, drain_delay=1) < 10
    assert loaders.made == 1


def test_the_second_signal_cuts_that_short():
    loaders = Loaders(STAYS)

    def story() -> None:
        wait_until(lambda: len(loaders.pids) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: loaders.phase.is_draining)

    assert served(loaders, story, drain_delay=600) < 30


def test_who_doesn_t_end_is_killed():
    loaders = Loaders(HEEDS_NOBODY, STAYS)
    assert 0.5 <= served(loaders, lambda: time.sleep(0.2), finish_seconds=0.5) < 10
