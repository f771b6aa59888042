"""The process of `serve` above its workers: it replaces those that die, and ends them so that no request is lost.

Ending has two steps. First the node *drains*: `/readyz` answers 503, so that balancers send no more, and everything
is still answered, each answer with `Connection: close`, so that no client holds on to a connection that is about to
go. After that the workers stop listening and finish what they have begun.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from granian.server import mp

from tokenserver.cli.cores import core_of, put_on
from tokenserver.cli.loader import Forked, Loader, LoaderEnded
from tokenserver.cli.phase import Phase

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# A worker that ends by itself so soon after the one before it isn't started again.
SOON: Final = 5.5
# Loaders that may be killed one after the other before a server gives up.
TRIES: Final = 3


class _ForkedWorker(mp.WorkerProcess):
    parent: "Supervisor"

    def _spawn(self, target: Any, args: Any) -> None:
        self.inner = Forked(lambda: self.parent.fork(target, args))


mp.WorkerProcess = _ForkedWorker  # type: ignore[misc] # what MPServer makes


class Supervisor(mp.MPServer):
    """`loader`: of the first workers; it is closed then. `drain_delay` in s: from the first signal until workers
    stop listening; a second signal cuts it short. `own_cores`: see `cores.core_of`.
    """

    def __init__(self, *args: Any, loader: Loader, drain_delay: int, own_cores: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.phase = loader.phase
        self._loader = loader
        self._drain_delay = drain_delay
        self._own_cores = own_cores
        self._asked_again = threading.Event()

    def signal_handler_interrupt(self, *args: Any, **_options: Any) -> None:
        if self.interrupt_signal:
            self._asked_again.set()
        super().signal_handler_interrupt(*args)  # type: ignore[no-untyped-call]

    def fork(self, target: Any, args: Any) -> int:
        """The pid of a worker."""
        pid = self._fork(target, args)
        number, *_ = args  # from 1
        core = core_of(number - 1, self.workers) if self._own_cores else None
        if core is not None:
            put_on(core, pid)
        return pid

    def _fork(self, target: Any, args: Any) -> int:
        for _ in range(TRIES - 1):
            with suppress(LoaderEnded):
                return self._loader.fork(target, args)
            self._loader.close()
            self._loader = self._loader.again()
        return self._loader.fork(target, args)

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        try:
            super()._spawn_workers(spawn_target, target_loader)  # type: ignore[no-untyped-call]
        finally:
            self._loader.close()

    def _respawn_workers(self, *args: Any, **options: Any) -> None:
        self._loader = self._loader.again()
        try:
            super()._respawn_workers(*args, **options)
        finally:
            self._loader.close()

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        # Not granian's loop, which may overlook a worker that dies while it replaces another one, and takes two
        # workers killed from outside for a crash loop.
        while not self.interrupt_signal:
            self.main_loop_interrupt.wait()
            self.main_loop_interrupt.clear()
            dead = {self.interrupt_children.pop() for _ in tuple(self.interrupt_children)}
            if dead and not self.interrupt_signal:
                if any(self._died_at_start(index) for index in dead):
                    self.interrupt_children.extend(dead)  # the exit code tells
                    break
                self._respawn_workers(sorted(dead), spawn_target, target_loader)
        if self.interrupt_signal:
            self.phase.drain()
            self._asked_again.wait(self._drain_delay)
        self.phase.stop()

    def _died_at_start(self, index: int) -> bool:
        """By itself: not because somebody killed it, as the kernel does when memory is short."""
        if self.wrks[index].inner.exitcode == -signal.SIGKILL:
            return False
        return not self.phase.has_loaded or time.monotonic() - self.respawned_wrks.get(index, -SOON) < SOON


class Worker:
    """What a worker process answers with. `load` makes the application there, given whether the node drains."""

    def __init__(self, load: "Callable[[Callable[[], bool]], WSGIApplication]", phase: Phase) -> None:
        self._load = load
        self._phase = phase

    def __call__(self) -> "WSGIApplication":
        _heed_sigterm_only_when(lambda: self._phase.is_stopping)
        phase, application = self._phase, self._load(lambda: self._phase.is_draining)
        phase.loaded()

        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            return application(environ, _closing(start_response) if phase.is_draining else start_response)

        return answer


def _closing(start_response: "StartResponse") -> "StartResponse":
    """RFC 9112 section 9.6: the last answer on this connection."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [*headers, ("Connection", "close")], *exc_info)

    return start


def _heed_sigterm_only_when(told: Callable[[], bool]) -> None:
    """Supervisors such as systemd send SIGTERM to all processes of a service at once; who drains goes on."""
    from granian import _signals

    def set_signals(handler: Callable[[int, Any], None], *_reload: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: handler(number, frame) if told() else None)

    _signals.set_main_signals = set_signals
