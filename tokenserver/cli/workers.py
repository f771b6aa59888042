"""The worker processes of `serve`: their port, what they answer with, and how they end.

The process of `serve` owns them and the embedded Redis, and answers no request itself.
"""

import errno
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tokenserver.cli.command import sentence
from tokenserver.cli.loader import Loader
from tokenserver.cli.slow_requests import Impatience, in_slots
from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, TokenserverError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from tokenserver.cli.supervisor import Supervisor

PORT_PATIENCE: Final = 3.0  # seconds that workers of a server that was killed may take to end
FINISH_SECONDS: Final = 8  # that requests may take to finish once the workers listen no more
CONNECTIONS: Final = 512  # of each worker at a time; further ones wait in the kernel's queue
# Until a request's head must be complete, and as long as a connection may idle. A balancer keeps its connections
# idle for up to a minute and expects them to be there.
HEAD_SECONDS: Final = {False: 20, True: 75}
HEAD_BYTES: Final = 64 * 1024
REQUEST_SECONDS: Final = 30  # from a request's first byte to that of its answer
# So many objects more than before, and the collector looks for cycles among them.
YOUNG_OBJECTS: Final = 5000
# Of jemalloc, which is what granian's Rust allocates by.
GRANIAN_ALLOCATOR: Final = "narenas:1,tcache:false"
IDLE_THREAD_SECONDS: Final = 10  # until a thread that nothing is asked of ends, and gives back what it has
SPARE_SECONDS: Final = 15  # that a connection may be silent for beyond HEAD_SECONDS, which end it by themselves


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
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, settings.port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return 0


def answer(is_draining: Callable[[], bool]) -> "WSGIApplication":
    """What a worker process answers with; runs there."""
    from tokenserver.app import MAX_BODY_BYTES, create_worker, rooms_of
    from tokenserver.oauth.endpoints.door import LIGHT
    from tokenserver.oauth.endpoints.waiting import waiting
    from tokenserver.tokens.revocation_watch import Watch

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
    silent_seconds = HEAD_SECONDS[settings.trusted_proxies > 0] + SPARE_SECONDS
    Impatience(settings.port, request_seconds=REQUEST_SECONDS, silent_seconds=silent_seconds).start()
    watch = Watch(rooms.revocation_list, is_ending=is_draining, require=rooms.clock.require)
    in_turn = in_slots(application, slots=settings.threads, max_body=MAX_BODY_BYTES, light=LIGHT)
    return waiting(in_turn, watch)


def create(settings: Settings, address: str, loader: Loader) -> "Supervisor":
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from tokenserver.cli.supervisor import Supervisor

    server = Supervisor(
        "tokenserver.app:create_worker",
        address=address,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        # One for each connection, which may wait for a body or for a revocation; `in_slots` says how many may work.
        blocking_threads=CONNECTIONS,
        blocking_threads_idle_timeout=IDLE_THREAD_SECONDS,
        backpressure=CONNECTIONS,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEAD_SECONDS[settings.trusted_proxies > 0] * 1000, max_buffer_size=HEAD_BYTES
        ),
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=FINISH_SECONDS,
        loader=loader,
        drain_delay=settings.drain_delay,
        own_cores=settings.own_cores,
        log_level=LogLevels.debug if settings.log_level == "debug" else LogLevels.error,
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
    )
    # A worker that ended before it was told to isn't worth a word once everything is ending.
    logging.getLogger("_granian").addFilter(lambda _record: not server.interrupt_signal)
    return server


def spare_memory() -> None:
    """Of processes that start from here on."""
    # glibc would keep the 19 MiB of each password hash, once for each thread, instead of giving them back.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1024 * 1024))
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # Both allocators would keep a store for each thread, and there is a thread for each connection.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
    os.environ.setdefault("_RJEM_MALLOC_CONF", GRANIAN_ALLOCATOR)


def run(server: "Supervisor") -> None:
    from tokenserver.cli.supervisor import Worker

    try:
        # Loaded by our own function: granian's would look into the working folder for modules first.
        server.serve(target_loader=Worker(answer, server.phase), wrap_loader=False)
    except SystemExit:
        if not server.interrupt_signal:
            raise TokenserverError(
                private="the workers end as soon as they start: what they said stands above"
            ) from None


def signals_as_sigterm() -> None:
    """Ctrl-C, and the end of a terminal, reach all its processes at once. Here they ask for an orderly end; the
    workers inherit that they are blocked, so that they end when they are told to, and Redis after them.
    """
    numbers = {signal.SIGINT, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        numbers = {signal.SIGINT}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the workers' server has its own
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    main_thread = threading.get_ident()

    def forward() -> None:
        while True:
            signal.sigwait(numbers)
            signal.pthread_kill(main_thread, signal.SIGTERM)

    threading.Thread(target=forward, name="signals", daemon=True).start()
