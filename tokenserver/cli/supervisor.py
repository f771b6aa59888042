"""The process of `serve` above its workers: it replaces those that die, and ends them so that no request is lost.

Ending has two steps. First the node *drains*: `/readyz` answers 503, so that balancers send no more, and everything
is still answered, each answer with `Connection: close`, so that no client holds on to a connection that is about to
go. After that the workers stop listening and finish what they have begun.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tokenserver.cli.cores import core_of, put_on
from tokenserver.cli.loader import Forked, Loader, LoaderEnded
from tokenserver.errors import TokenserverError

logger = logging.getLogger("tokenserver.workers")

# A worker that ends by itself so soon after the one before it isn't started again.
SOON: Final = 5.5
# Loaders that may be killed one after the other before a server gives up.
TRIES: Final = 3
# How a worker ends that didn't do so by itself. SIGTERM ends one that hasn't begun to load.
KILLED: Final = (-signal.SIGKILL, -signal.SIGTERM)


class Worker:
    """The process at a place among the workers, from 0. `is_replacement`: there was another one before it."""

    def __init__(self, place: int, process: Forked, *, is_replacement: bool) -> None:
        self.place = place
        self.process = process
        self._replaced_at = time.monotonic() if is_replacement else None

    def died_at_start(self, *, any_has_loaded: bool) -> bool:
        """By itself: not because somebody killed it, as the kernel does when memory is short."""
        if self.process.exitcode in KILLED:
            return False
        is_soon = self._replaced_at is not None and time.monotonic() - self._replaced_at < SOON
        return not any_has_loaded or is_soon


class Supervisor:
    """`work`, with `arguments`: what each worker does from its start to its end. `loader`: of the first workers; it
    is closed then. `drain_delay` in s: from the first signal until workers stop listening; a second signal cuts it
    short. `finish_seconds`: that workers may take to end after that. `own_cores`: see `cores.core_of`.
    """

    def __init__(
        self,
        work: Callable[..., object],
        arguments: tuple[Any, ...],
        *,
        loader: Loader,
        workers: int,
        drain_delay: float,
        finish_seconds: float,
        own_cores: bool,
    ) -> None:
        self.is_ending = False
        self._work = work
        self._arguments = arguments
        self._loader = loader
        self._phase = loader.phase
        self._count = workers
        self._drain_delay = drain_delay
        self._finish_seconds = finish_seconds
        self._own_cores = own_cores
        self._is_urgent = False
        self._workers: list[Worker] = []
        self._woken = -1  # a pipe that is readable after a signal

    def serve(self) -> None:
        """In the main thread, until a signal asks to end. Raises TokenserverError for workers that can't start."""
        with self._heeding_signals():
            try:
                self._start(range(self._count))
                while not self.is_ending:
                    dead = self._dead()
                    if dead:
                        self._replace(dead)
                    else:
                        self._pause(None)
                self._phase.drain()
                self._drain()
            finally:
                self._end()

    # Signals

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """A signal may come while nobody waits yet: each one is noted in a pipe, whoever it was delivered to."""
        self._woken, noted = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(noted, False)
        signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes, no more
        signal.signal(signal.SIGTERM, self._asked_to_end)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            os.close(noted)
            os.close(self._woken)

    def _asked_to_end(self, *_: object) -> None:
        self._is_urgent = self.is_ending
        self.is_ending = True

    def _pause(self, seconds: float | None) -> None:
        """Until there is a signal: a worker has ended, perhaps, or somebody asks."""
        select.select([self._woken], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)

    # Workers that begin

    def _start(self, places: range | list[int], *, are_replacements: bool = False) -> None:
        """Closes the loader, so that what it forked is ours."""
        try:
            for place in places:
                if self.is_ending:
                    return
                pid = self._fork()
                self._workers.append(Worker(place, Forked(pid), is_replacement=are_replacements))
                core = core_of(place, self._count) if self._own_cores else None
                if core is not None:
                    put_on(core, pid)
        finally:
            self._loader.close()

    def _fork(self) -> int:
        for _ in range(TRIES - 1):
            with suppress(LoaderEnded):
                return self._loader.fork(self._work, self._arguments)
            self._loader.close()
            self._loader = self._loader.again()
        return self._loader.fork(self._work, self._arguments)

    def _dead(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.process.has_ended()]

    def _replace(self, dead: list[Worker]) -> None:
        for worker in dead:
            logger.error("worker %d ended: %s", worker.place + 1, _told(worker.process.exitcode))
        any_has_loaded = self._phase.has_loaded
        if any(worker.died_at_start(any_has_loaded=any_has_loaded) for worker in dead):
            raise TokenserverError(private="the workers end as soon as they start: what they said stands above")
        self._workers = [worker for worker in self._workers if worker not in dead]
        self._loader = self._loader.again()
        self._start([worker.place for worker in dead], are_replacements=True)

    # Workers that end

    def _drain(self) -> None:
        until = time.monotonic() + self._drain_delay
        while not self._is_urgent and (left := until - time.monotonic()) > 0:
            self._pause(left)

    def _end(self) -> None:
        self._phase.stop()
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + self._finish_seconds
        while len(self._dead()) < len(self._workers) and (left := until - time.monotonic()) > 0:
            self._pause(left)
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()


def _told(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    with suppress(ValueError):
        return signal.Signals(-exitcode).name
    return f"signal {-exitcode}"
