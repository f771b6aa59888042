"""`tokenserver init` and `tokenserver serve`: what a deployment needs is made, then worker processes answer."""

import ctypes
import json
import logging
import os
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from tokenserver.cli import workers
from tokenserver.cli.command import (
    furnished,
    json_option,
    log_to_stderr,
    make_data_folder,
    refuse_later,
    require_schema,
    show,
)
from tokenserver.cli.loader import Loader
from tokenserver.cli.phase import Phase
from tokenserver.config import PREFIX, Settings
from tokenserver.errors import ConfigurationError
from tokenserver.signals import shared

if TYPE_CHECKING:
    from tokenserver.cli.supervisor import Supervisor

logger = logging.getLogger("tokenserver.start")

READY_PATIENCE: Final = 60.0
PLACEHOLDER: Final = "YOUR-PASSWORD"


class FirstAdmin(NamedTuple):
    email: str
    password: str


class Steps:
    """What a start did and how long each step took, told as it happens. `logged`: as lines of the log."""

    def __init__(self, *, silent: bool = False, logged: bool = False) -> None:
        self.started = time.perf_counter()
        self.done: list[dict[str, Any]] = []
        self.admin: FirstAdmin | None = None
        self._silent = silent
        self.logged = logged

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def add(self, what: str, seconds: float) -> None:
        self.done.append({"what": what, "seconds": round(seconds, 3)})
        if self.logged:
            logger.info(what, extra={"seconds": round(seconds, 3)})
        elif not self._silent:
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
        with steps.timed("program loaded"):
            from tokenserver import first_start  # noqa: F401
        _prepare(settings, steps)
    data = {"steps": steps.done, "seconds": round(steps.seconds, 3), "admin": None}
    if steps.admin:
        data["admin"] = {"email": steps.admin.email, "password": _generated_password(settings, steps.admin)}
    text = "\n".join([f"{steps.seconds:7.2f} s  in all", *_admin_lines(settings, steps.admin)])
    show(data, as_json=as_json, text=text)


@click.command(short_help="Serve until Ctrl-C or SIGTERM.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on, instead of TOKENSERVER_HOST.")
@click.option("--port", metavar="PORT", help="Port to listen on, instead of TOKENSERVER_PORT.")
@click.option("--workers", "count", metavar="N", help="Number of server processes, instead of TOKENSERVER_WORKERS.")
def serve(host: str | None, port: str | None, count: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM. In development, first make what `tokenserver init` makes."""
    workers.spare_memory()
    given = {"HOST": host, "PORT": port, "WORKERS": count}
    os.environ.update({PREFIX + name: value for name, value in given.items() if value is not None})
    settings = Settings.load()
    # The workers read the same, whatever becomes of .env; the first admin is none of their business.
    _wipe(f"{PREFIX}ADMIN_PASSWORD")
    os.environ.update(settings.environment() | {f"{PREFIX}ADMIN_PASSWORD": ""})
    steps = _begin(settings)
    workers.heed_signals()
    with suppress(KeyboardInterrupt):  # asked to end before the workers were there
        _serve(settings, steps)


def _wipe(name: str) -> None:
    """Of what this process was given when it began: /proc/PID/environ shows that, for those that it forks, too."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(name.encode())
    if place:
        ctypes.memset(place, 0, len(os.environb[name.encode()]))


def _begin(settings: Settings) -> Steps:
    log_to_stderr(settings, "WARNING")
    # What a start tells, whatever else is told.
    logger.setLevel(logging.INFO)
    return Steps(logged=settings.log_format == "json")


def _serve(settings: Settings, steps: Steps) -> None:
    from tokenserver.storage.embedded import EmbeddedRedis

    address = workers.address_of(settings)
    workers.require_port(settings, address)
    with ExitStack() as stack:
        stack.enter_context(_shared_metrics(settings))
        with workers.uninterrupted():
            workers.hold_signals()
            # It loads while Redis starts.
            loader = Loader(Phase(), for_server_database=not settings.embedded_database, is_fork=True)
            stack.enter_context(loader)
            workers.forward_signals()
        if settings.embedded_redis:
            with steps.timed("embedded Redis"):
                stack.enter_context(EmbeddedRedis(settings.data_dir))
        server = workers.create(settings, address, loader)
        with steps.timed("program loaded"):
            loader.wait()
        if settings.env == "production":
            with steps.timed("stores and keys are there"):
                loader.apart(_require_initialised, settings)
        else:
            done, steps.admin = loader.apart(_prepared, settings)
            steps.done += done
        told = (server, address, settings, steps)
        threading.Thread(target=_announce, args=told, name="announce", daemon=True).start()
        server.serve()


# Before serving


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """The folder in which the workers count together; they find it in their environment."""
    if settings.metrics_dir:
        yield
        return
    try:
        folder = shared.make()
    except OSError as error:
        logger.warning("no folder for metrics, each worker tells its own alone: %s", error.strerror)
        yield
        return
    os.environ[f"{PREFIX}METRICS_DIR"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepared(settings: Settings) -> tuple[list[dict[str, Any]], "FirstAdmin | None"]:
    """The steps, told as they were done, and the admin that one of them made."""
    steps = _begin(settings)
    _prepare(settings, steps)
    return steps.done, steps.admin


def _prepare(settings: Settings, steps: Steps) -> None:
    from tokenserver import first_start
    from tokenserver.storage import redis_rules

    if settings.embedded_database:
        make_data_folder(settings)
    with furnished(settings) as rooms:
        redis_rules.require(rooms.store)
        refuse_later(rooms)
        for step in first_start.prepare(rooms):
            steps.add(step.what, step.seconds)
            if step.admin:
                steps.admin = FirstAdmin(step.admin.email, step.admin.password)


def _require_initialised(settings: Settings) -> None:
    log_to_stderr(settings, "WARNING")
    from tokenserver.storage import redis_rules
    from tokenserver.storage.feed import ServerState

    with furnished(settings) as rooms:
        require_schema(rooms)
        redis_rules.require(rooms.store)
        rooms.keys.signer(settings.signing_alg)
        is_initialised = rooms.database.read(lambda tx: tx.get(ServerState, 1)) is not None
    if not is_initialised:
        raise ConfigurationError("the database was migrated but not initialised: run `tokenserver init`")


# Saying so


def _announce(server: "Supervisor", address: str, settings: Settings, steps: Steps) -> None:
    started = time.perf_counter()
    while not _is_ready(address, settings.port):
        if server.is_ending:
            return
        if time.perf_counter() - started > READY_PATIENCE:
            click.echo(
                f"tokenserver: not ready after {READY_PATIENCE:.0f} s: `tokenserver doctor` tells why", err=True
            )
            return
        time.sleep(0.05)
    steps.add(f"{settings.workers} worker{'s' * (settings.workers > 1)}", time.perf_counter() - started)
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{settings.port}"
    if steps.logged:
        logger.info("ready", extra={"url": url, "issuer": settings.issuer, "seconds": round(steps.seconds, 3)})
        click.echo("\n".join(_admin_lines(settings, steps.admin)), nl=bool(steps.admin))
        return
    login = steps.admin.email if steps.admin else settings.admin_email or "admin@localhost"
    password = _generated_password(settings, steps.admin) or PLACEHOLDER
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


def _admin_lines(settings: Settings, admin: "FirstAdmin | None") -> list[str]:
    if admin is None:
        return []
    password = _generated_password(settings, admin)
    if password is None:
        return ["", f"First admin: {admin.email}, with the password of TOKENSERVER_ADMIN_PASSWORD"]
    return ["", f"First admin: {admin.email}", f"Password:    {password}   (shown this once: change it)"]


def _generated_password(settings: Settings, admin: "FirstAdmin | None") -> str | None:
    """None for one that was given: a log would keep it."""
    return admin.password if admin and not settings.admin_password else None


def _loopback(url: str) -> str:
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _is_ready(address: str, port: int) -> bool:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - asked, not bound
    host = f"[{address}]" if ":" in address else address
    # By hand: http.client and what it imports would take 2 MB for as long as the server runs.
    with suppress(OSError), socket.create_connection((reachable, port), timeout=5) as connection:
        connection.sendall(f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    return False
