"""`tokenserver init` and `tokenserver serve`: what a deployment needs is made, then worker processes answer.

The process of `serve` owns the embedded Redis and the workers, and answers no request itself.
"""

import errno
import http.client
import json
import logging
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import click

from tokenserver.cli import redis_rules
from tokenserver.cli.command import (
    furnished,
    json_option,
    log_to_stderr,
    make_data_folder,
    refuse_later,
    require_schema,
    sentence,
    show,
)
from tokenserver.config import PREFIX, Settings
from tokenserver.errors import ConfigurationError, TokenserverError

if TYPE_CHECKING:
    from flask import Flask
    from granian.server.mp import MPServer

    from tokenserver.first_start import Admin
    from tokenserver.rooms import Rooms

PORT_PATIENCE: Final = 3.0  # seconds that workers of a server that was killed may take to end
READY_PATIENCE: Final = 60.0
DRAIN_SECONDS: Final = 15  # that requests may take to finish once the server was asked to end
CONNECTIONS: Final = 512  # of each worker at a time; further ones wait in the kernel's queue
# Until a request's head must be complete, and as long as a connection may idle. A balancer keeps its connections
# idle for up to a minute and expects them to be there.
HEAD_SECONDS: Final = {False: 20, True: 75}
HEAD_BYTES: Final = 64 * 1024
PLACEHOLDER: Final = "YOUR-PASSWORD"


class Steps:
    """What a start did and how long each step took, told as it happens."""

    def __init__(self, *, silent: bool = False) -> None:
        self.started = time.perf_counter()
        self.done: list[dict[str, Any]] = []
        self.admin: Admin | None = None
        self._silent = silent

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def add(self, what: str, seconds: float) -> None:
        self.done.append({"what": what, "seconds": round(seconds, 3)})
        if not self._silent:
            click.echo(f"{seconds:7.2f} s  {what}")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(what, time.perf_counter() - started)


@click.command(short_help="Make what is missing: schema, keys, roles, admin.")
@json_option
def init(as_json: bool) -> None:
    """Make what is missing: database schema, signing keys, built-in roles, first admin. Safe to repeat."""
    settings = Settings.load()
    log_to_stderr(settings, "WARNING")
    steps = Steps(silent=as_json)
    with ExitStack() as stack:
        if settings.embedded_redis:
            from tokenserver.storage.embedded import attach_or_start

            with steps.timed("embedded Redis"):
                stack.enter_context(attach_or_start(settings))
        _prepare(settings, steps)
    admin = {"email": steps.admin.email, "password": steps.admin.password} if steps.admin else None
    data = {"steps": steps.done, "seconds": round(steps.seconds, 3), "admin": admin}
    text = "\n".join([f"{steps.seconds:7.2f} s  in all", *_admin_lines(settings, steps.admin)])
    show(data, as_json=as_json, text=text)


@click.command(short_help="Serve until Ctrl-C or SIGTERM.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on, instead of TOKENSERVER_HOST.")
@click.option("--port", metavar="PORT", help="Port to listen on, instead of TOKENSERVER_PORT.")
@click.option("--workers", metavar="N", help="Number of server processes, instead of TOKENSERVER_WORKERS.")
def serve(host: str | None, port: str | None, workers: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM. In development, first make what `tokenserver init` makes."""
    steps = Steps()
    given = {"HOST": host, "PORT": port, "WORKERS": workers}
    os.environ.update({PREFIX + name: value for name, value in given.items() if value is not None})
    settings = Settings.load()
    # The workers read the same, whatever becomes of .env; the first admin is none of their business.
    os.environ.update(settings.environment() | {f"{PREFIX}ADMIN_PASSWORD": ""})
    log_to_stderr(settings, "WARNING")
    with _signals_as_sigterm(), suppress(KeyboardInterrupt):  # asked to end before the workers were there
        _serve(settings, steps)


def _serve(settings: Settings, steps: Steps) -> None:
    from tokenserver.storage.embedded import EmbeddedRedis

    address = _address(settings)
    _require_port(settings, address)
    with ExitStack() as stack:
        if settings.embedded_redis:
            with steps.timed("embedded Redis"):
                stack.enter_context(EmbeddedRedis(settings.data_dir))
        if settings.env == "production":
            with steps.timed("stores and keys are there"), furnished(settings) as rooms:
                _require_initialised(rooms)
        else:
            _prepare(settings, steps)
        server = _workers(settings, address)
        threading.Thread(target=_announce, args=(server, settings, steps), name="announce", daemon=True).start()
        _run(server)


# Before serving


def _prepare(settings: Settings, steps: Steps) -> None:
    with steps.timed("program loaded"):
        from tokenserver import first_start
    if settings.embedded_database:
        make_data_folder(settings)
    with furnished(settings) as rooms:
        redis_rules.require(rooms.store)
        refuse_later(rooms)
        for step in first_start.prepare(rooms):
            steps.add(step.what, step.seconds)
            steps.admin = step.admin or steps.admin


def _require_initialised(rooms: "Rooms") -> None:
    from tokenserver.storage.feed import ServerState

    require_schema(rooms)
    redis_rules.require(rooms.store)
    rooms.keys.signer(rooms.settings.signing_alg)
    if rooms.database.read(lambda tx: tx.get(ServerState, 1)) is None:
        raise ConfigurationError("the database was migrated but not initialised: run `tokenserver init`")


def _address(settings: Settings) -> str:
    """Of the host, an IPv4 one if there is a choice."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError:
        raise ConfigurationError("TOKENSERVER_HOST: there is no address of this name") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def _require_port(settings: Settings, address: str) -> None:
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


# Serving


def worker() -> "Flask":
    """What a worker process answers with; runs there."""
    from tokenserver.app import create_worker

    try:
        return create_worker()
    except TokenserverError as error:
        raise SystemExit(f"tokenserver: {sentence(error)}") from None


def _workers(settings: Settings, address: str) -> "MPServer":
    import multiprocessing

    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server.mp import MPServer

    # A forked worker would share this process's locks, connections and lock on the data folder.
    multiprocessing.set_start_method("spawn", force=True)
    server = MPServer(
        "tokenserver.app:create_worker",
        address=address,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backpressure=CONNECTIONS,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEAD_SECONDS[settings.trusted_proxies > 0] * 1000, max_buffer_size=HEAD_BYTES
        ),
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=DRAIN_SECONDS,
        log_level=LogLevels.debug if settings.log_level == "debug" else LogLevels.error,
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
    )
    # A worker that ended before it was told to isn't worth a word once everything is ending.
    logging.getLogger("_granian").addFilter(lambda _record: not server.interrupt_signal)
    return server


def _run(server: "MPServer") -> None:
    try:
        # Loaded by our own function: granian's would look into the working folder for modules first.
        server.serve(target_loader=worker, wrap_loader=False)
    except SystemExit:
        if not server.interrupt_signal:
            raise TokenserverError(
                private="the workers end as soon as they start: what they said stands above"
            ) from None


@contextmanager
def _signals_as_sigterm() -> Iterator[None]:
    """Ctrl-C, and the end of a terminal, reach all its processes at once. Here they ask for an orderly end; the
    workers inherit that they are blocked, so that they end when they are told to, and Redis after them.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it unblocks the signals when it starts, so let it be first
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
    try:
        yield
    finally:
        # Where nobody reaps, as in many containers, it would stay behind as a zombie.
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way


# Saying so


def _announce(server: "MPServer", settings: Settings, steps: Steps) -> None:
    started = time.perf_counter()
    while not _is_ready(server.bind_addr, settings.port):
        if server.interrupt_signal:
            return
        if time.perf_counter() - started > READY_PATIENCE:
            click.echo(
                f"tokenserver: not ready after {READY_PATIENCE:.0f} s: `tokenserver doctor` tells why", err=True
            )
            return
        time.sleep(0.05)
    steps.add(f"{settings.workers} worker{'s' * (settings.workers > 1)}", time.perf_counter() - started)
    host = f"[{server.bind_addr}]" if ":" in server.bind_addr else server.bind_addr
    url = f"http://{host}:{settings.port}"
    login = steps.admin.email if steps.admin else settings.admin_email or "admin@localhost"
    password = _shown_password(settings, steps.admin) if steps.admin else PLACEHOLDER
    body = shlex.quote(json.dumps({"login": login, "password": password}, ensure_ascii=False))
    lines = [
        f"{steps.seconds:7.2f} s  in all",
        "",
        f"Ready at {url}" + (f" as {settings.issuer}" if settings.issuer != url else ""),
        *_admin_lines(settings, steps.admin),
        "",
        "A first token:",
        f"  curl -s {_loopback(url)}/auth/login -H 'Content-Type: application/json' -d {body}",
        "",
        "What to do next: README.md",
    ]
    click.echo("\n".join(lines))


def _admin_lines(settings: Settings, admin: "Admin | None") -> list[str]:
    if admin is None:
        return []
    if settings.admin_password:
        return ["", f"First admin: {admin.email}, with the password of TOKENSERVER_ADMIN_PASSWORD"]
    return ["", f"First admin: {admin.email}", f"Password:    {admin.password}   (shown this once: change it)"]


def _shown_password(settings: Settings, admin: "Admin") -> str:
    return PLACEHOLDER if settings.admin_password else admin.password


def _loopback(url: str) -> str:
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _is_ready(address: str, port: int) -> bool:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - asked, not bound
    connection = http.client.HTTPConnection(reachable, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
