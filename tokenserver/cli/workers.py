"""The worker processes of `serve`: their port, what they answer with, and how they end.

The process of `serve` owns them and the embedded Redis, and answers no request itself.
"""

import errno
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tokenserver.cli.command import sentence
from tokenserver.cli.loader import Loader
from tokenserver.cli.phase import Phase
from tokenserver.cli.supervisor import Supervisor
from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, TokenserverError
from tokenserver.signals import traces

PORT_PATIENCE: Final = 3.0  # seconds that workers of a server that was killed may take to end
FINISH_SECONDS: Final = 8  # that requests may take to finish once the workers listen no more
KILL_SECONDS: Final = 2  # beyond those, and then they are killed
CONNECTIONS: Final = 512  # of each worker at a time; further ones wait in the kernel's queue
BACKLOG: Final = 1024  # that queue, of each worker
# As long as a connection may idle. A balancer keeps its connections idle for up to a minute and expects them to be
# there.
IDLE_SECONDS: Final = {False: 20, True: 75}
HEAD_BYTES: Final = 64 * 1024
REQUEST_SECONDS: Final = 30  # from a request's first byte until it is whole
SPARING: Final = {
    # glibc would keep the 19 MiB of each password hash, once for each thread, instead of giving them back.
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
    "MALLOC_ARENA_MAX": "2",
    # And a store of small pieces for each thread: of those that answer, run errands, hash and wait.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
# So many objects more than before, and the collector looks for cycles among them.
YOUNG_OBJECTS: Final = 5000


def address_of(settings: Settings) -> str:
    """Of the host, an IPv4 one if there is a choice."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        raise ConfigurationError("TOKENSERVER_HOST: there is no address of this name") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def require_port(settings: Settings, address: str) -> None:
    """The workers share the port among themselves, and would share it with another server of this user too."""
    deadline = time.monotonic() + PORT_PATIENCE
    while (fault := _port_fault(settings, address)) == errno.EADDRINUSE and time.monotonic() < deadline:
        time.sleep(0.05)
    if fault == errno.EADDRINUSE:
        raise ConfigurationError(
            f"port {settings.port} of {settings.host} is taken by another program: stop it, or set TOKENSERVER_PORT"
        )
    if fault == errno.EACCES:
        raise ConfigurationError(f"TOKENSERVER_PORT: this user may not listen on port {settings.port}")
    if fault:
        raise ConfigurationError(f"TOKENSERVER_HOST: {settings.host}: {os.strerror(fault)}")


def _port_fault(settings: Settings, address: str) -> int:
    with socket.socket(_family(address)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, settings.port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def create(settings: Settings, address: str, loader: Loader) -> Supervisor:
    return Supervisor(
        work,
        (address, loader.phase),
        loader=loader,
        workers=settings.workers,
        drain_delay=settings.drain_delay,
        finish_seconds=FINISH_SECONDS + KILL_SECONDS,
        own_cores=settings.own_cores,
    )


def spare_memory() -> None:
    """Of this process and those that it starts. glibc reads it when a process begins, so this one begins again."""
    missing = {name: value for name, value in SPARING.items() if name not in os.environ}
    if missing:
        os.environ.update(missing)
        with suppress(OSError):  # no program to be found: more memory, then
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very program


def work(address: str, phase: Phase) -> None:
    """What a worker process does, from its start to its end.

    Supervisors such as systemd send SIGTERM to all processes of a service at once; who drains goes on.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit() if phase.is_stopping else None)
    from tokenserver.app import MAX_BODY_BYTES, create_worker, rooms_of
    from tokenserver.cli.crew import in_turn
    from tokenserver.cli.http_server import HttpServer, Limits
    from tokenserver.oauth.endpoints.door import is_light, usual_by
    from tokenserver.oauth.endpoints.waiting import prefers_to_wait, waiting
    from tokenserver.tokens.revocation_watch import Watch

    def is_draining() -> bool:
        return phase.is_draining

    try:
        application = create_worker(is_draining)
    except TokenserverError as error:
        raise SystemExit(f"tokenserver: {sentence(error)}") from None
    # What is there now stays: the collector needn't look through all of it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    rooms = rooms_of(application)
    settings = rooms.settings
    watch = Watch(rooms.revocation_list, is_ending=is_draining, require=rooms.clock.require)
    server = HttpServer(
        _listener(address, settings.port),
        application,
        limits=Limits(
            connections=CONNECTIONS,
            head_bytes=HEAD_BYTES,
            body_bytes=MAX_BODY_BYTES,
            idle_seconds=IDLE_SECONDS[settings.trusted_proxies > 0],
            request_seconds=REQUEST_SECONDS,
            finish_seconds=FINISH_SECONDS,
        ),
        threads=settings.threads,
        is_light=is_light,
        usual=usual_by(application),
        may_wait=prefers_to_wait,
        # Who waited works in the end, and not all at once.
        waiting=waiting(in_turn(application, settings.threads), watch),
        is_draining=is_draining,
    )
    signal.signal(signal.SIGTERM, lambda *_: server.stop() if phase.is_stopping else None)
    phase.loaded()
    server.run()
    traces.end()


def _listener(address: str, port: int) -> socket.socket:
    """The worker's own: the kernel spreads connections over those of all workers."""
    listener = socket.socket(_family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        raise SystemExit(f"tokenserver: port {port} of {address}: {error.strerror}") from None
    return listener


class _Interruption:
    """Of a start, by KeyboardInterrupt."""

    def __init__(self) -> None:
        self.may_wait = self.is_waiting = False

    def come(self, *_: object) -> None:
        if not self.may_wait:
            raise KeyboardInterrupt
        self.is_waiting = True


_interruption: Final = _Interruption()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What isn't to be left half made: an interruption comes behind it."""
    _interruption.may_wait = True
    try:
        yield
    finally:
        _interruption.may_wait = False
    if _interruption.is_waiting:
        raise KeyboardInterrupt


def heed_signals() -> None:
    """Those that end a server interrupt its start from here on."""
    for number in _ending():
        signal.signal(number, _interruption.come)


def hold_signals() -> None:
    """Ctrl-C, and the end of a terminal, reach all its processes at once. The children inherit that these are
    blocked, so that they end when they are told to, and Redis after the workers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ending() - {signal.SIGTERM})


def forward_signals() -> None:
    """Those that are held ask this process for an orderly end, as SIGTERM."""
    numbers = _ending() - {signal.SIGTERM}
    main_thread = threading.get_ident()

    def forward() -> None:
        while True:
            signal.sigwait(numbers)
            signal.pthread_kill(main_thread, signal.SIGTERM)

    threading.Thread(target=forward, name="signals", daemon=True).start()


def _ending() -> set[signal.Signals]:
    is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    return {signal.SIGINT, signal.SIGTERM} | (set() if is_deaf else {signal.SIGHUP})
