"""What `doctor` looks at, one function for each subject. Nothing here changes anything."""

import http.client
import json
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from tokenserver.cli import redis_rules
from tokenserver.cli.command import find_schema, furnished, is_later
from tokenserver.config import Settings, is_loopback
from tokenserver.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenserver.rooms import Rooms

Status = Literal["ok", "warning", "fault"]

INIT: Final = "run `tokenserver init`"
SKEW_WARNING: Final = 1.0  # seconds
SKEW_FAULT: Final = 10.0
LEAST_DISK: Final = 100 * 1024 * 1024
EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


class Finding(NamedTuple):
    """`detail`: what is so. `remedy`: what to do, empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


class Check(NamedTuple):
    """`patience`: seconds that it may take. `remedy`: what to do when it fails in a way that it doesn't expect."""

    name: str
    look: Callable[[], Iterator[Finding]]
    remedy: str
    patience: float = 15


def configuration() -> tuple[Settings | None, Finding]:
    try:
        settings = Settings.read()
    except ConfigurationError as error:
        remedy = "correct it in the environment or in .env; docs/configuration.md explains each setting"
        return None, Finding("configuration", "fault", str(error), remedy)
    return settings, Finding("configuration", "ok", f"{settings.env}, issuer {settings.issuer}")


def checks_of(settings: Settings) -> Iterator[Check]:
    see_sql = "see that the database is up and TOKENSERVER_DATABASE_URL is right"
    see_redis = "see that Redis is up and TOKENSERVER_REDIS_URL is right"
    if settings.embedded_redis:
        see_redis = f"see {settings.data_dir / 'redis.log'}"
    yield Check("production", lambda: production(settings), "docs/configuration.md explains each setting")
    yield Check("proxies", lambda: proxies(settings), "docs/configuration.md explains each setting")
    if settings.embedded_database or settings.embedded_redis:
        yield Check("data folder", lambda: data_folder(settings), f"see who owns {settings.data_dir}")
    yield Check("keys", lambda: keys(settings), f"see who owns {settings.keys_dir}")
    yield Check("database", lambda: database(settings), see_sql)
    # An embedded Redis may have to be started for this, and to load its data.
    yield Check("redis", lambda: redis(settings), see_redis, 60 if settings.embedded_redis else 15)
    yield Check("server", lambda: server(settings), "stop what listens there, or set TOKENSERVER_PORT")


# Settings that don't fit together


def production(settings: Settings) -> Iterator[Finding]:
    faults = settings.production_faults()
    for fault in faults:
        yield Finding("production", "fault", fault, "correct it in the environment or in .env")
    if not faults and settings.env == "production":
        yield Finding("production", "ok", "its rules are kept")
    if not settings.rate_limits and settings.env != "production":
        yield Finding(
            "rate limits",
            "warning",
            "TOKENSERVER_RATE_LIMITS is off: passwords can be guessed as fast as the server answers",
            "turn it on, unless this is a benchmark",
        )
    plain = {
        "TOKENSERVER_DATABASE_URL": (settings.database_url, settings.database_has_tls, "sslmode=verify-full"),
        "TOKENSERVER_REDIS_URL": (settings.redis_url, settings.redis_has_tls, "rediss://"),
    }
    for name, (url, has_tls, remedy) in plain.items():
        if not has_tls and not is_loopback(_host(url)):
            detail = f"{name} goes over the network without TLS"
            yield Finding("tls", "warning", detail, f"use {remedy}, unless the network itself is private")
    if "sslmode=require" in settings.database_url:
        detail = "sslmode=require encrypts, but any server that answers is taken for the database"
        yield Finding("tls", "warning", detail, "use sslmode=verify-full with sslrootcert")


def proxies(settings: Settings) -> Iterator[Finding]:
    """Whether the issuer can be what clients reach, given where this server listens and what stands before it."""
    issuer = urlsplit(settings.issuer)
    host = issuer.hostname or ""
    if settings.trusted_proxies:
        if issuer.scheme == "http":
            yield Finding(
                "proxies",
                "warning",
                "proxies are trusted, but the issuer is http: tokens travel unencrypted to the proxy",
                "let the proxy speak TLS and set TOKENSERVER_ISSUER to its https address",
            )
            return
    elif issuer.scheme == "https":
        # The server itself speaks http alone.
        yield Finding(
            "proxies",
            "warning",
            "the issuer is https, so a proxy must stand before this server, but none is trusted: rate limits and "
            "the audit log take every client for the proxy",
            "set TOKENSERVER_TRUSTED_PROXIES to the number of proxies",
        )
        return
    elif not _reaches(host, issuer.port or 80, settings):
        yield Finding(
            "proxies",
            "warning",
            f"clients are told {settings.issuer}, but the server listens on {settings.host}:{settings.port}",
            "correct TOKENSERVER_ISSUER, or TOKENSERVER_HOST and TOKENSERVER_PORT",
        )
        return
    yield Finding("proxies", "ok", "issuer, address and proxies fit together")


def _reaches(host: str, port: int, settings: Settings) -> bool:
    if port != settings.port:
        return False
    if settings.host in EVERYWHERE or host == settings.host:
        return True
    # Another name of an address that isn't loopback may well lead here.
    return is_loopback(host) == is_loopback(settings.host)


# Folders


def data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.is_dir():
        yield Finding("data folder", "fault", f"{folder} does not exist", INIT)
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        yield Finding("data folder", "fault", f"{folder} has mode {mode:04o}", f"chmod 700 {folder}")
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        detail = f"{free // 1024 // 1024} MB are left on the disk of {folder}"
        yield Finding("disk space", "warning", detail, "make room: a full disk stops every sign-in and refresh")
    elif not mode & 0o077:
        yield Finding("data folder", "ok", str(folder))


def keys(settings: Settings) -> Iterator[Finding]:
    from tokenserver.tokens.key_ring import KeyRing

    ring = KeyRing(settings.keys_dir, jwks_max_age=settings.jwks_max_age, token_lifetime=settings.access_token_ttl)
    faults = ring.faults()
    for what, todo in faults:
        yield Finding("keys", "fault", what, todo)
    if faults:
        return
    for what, todo in ring.faults(settings.key_rotation_interval):
        yield Finding("key age", "warning", what, todo)
    ring.signer(settings.signing_alg)
    yield Finding("keys", "ok", f"{len(ring.entries())} in {settings.keys_dir}, one signs {settings.signing_alg}")


# Stores


def database(settings: Settings) -> Iterator[Finding]:
    from tokenserver.storage import schema

    with furnished(settings) as rooms:
        found, needed = find_schema(rooms), schema.head()
        if found is None:
            yield Finding("schema", "fault", "the database is not initialised", INIT)
            return
        yield Finding("database", "ok", "answers")
        if is_later(found):
            detail = f"revision {found} was made by a later version than this one"
            yield Finding("schema", "warning", detail, "nothing, while versions are being exchanged")
        elif found != needed:
            detail = f"revision {found}, and this version needs {needed}"
            yield Finding("schema", "fault", detail, "run `tokenserver db upgrade`")
            return
        else:
            yield Finding("schema", "ok", f"revision {found}")
        yield from _rows(rooms)
        if rooms.database.engine.dialect.name != "sqlite":
            yield _clock("database", lambda: _sql_time(rooms))


def _rows(rooms: "Rooms") -> Iterator[Finding]:
    from sqlalchemy import select

    from tokenserver.access.models import Role
    from tokenserver.access.permissions import BUILTIN_ROLES
    from tokenserver.access.rights import Rights
    from tokenserver.storage.feed import ServerState

    state = rooms.database.read(lambda tx: tx.get(ServerState, 1))
    roles = rooms.database.read(lambda tx: set(tx.scalars(select(Role.name))))
    missing = sorted(BUILTIN_ROLES.keys() - roles)
    if state is None or missing:
        what = "the row of server_state" if state is None else "the roles " + ", ".join(missing)
        yield Finding(
            "initialised", "fault", f"{what} is missing" if state is None else f"{what} are missing", INIT
        )
    else:
        yield Finding("initialised", "ok", "server state and built-in roles are there")
    if rooms.database.read(Rights.managers):
        yield Finding("admin", "ok", "somebody can manage roles")
    else:
        yield Finding("admin", "fault", "nobody can manage roles", f"{INIT}: it makes an admin")


def redis(settings: Settings) -> Iterator[Finding]:
    from tokenserver.storage.embedded import attach_or_start
    from tokenserver.storage.feed import STATE_KEY, ServerState

    if settings.embedded_redis and not settings.data_dir.is_dir():
        return  # there is nothing to start it on, as "data folder" says
    present: AbstractContextManager[None] = attach_or_start(settings) if settings.embedded_redis else nullcontext()
    with present, furnished(settings) as rooms:
        store = rooms.store
        for name, fault in (
            ("redis version", redis_rules.version_fault(store)),
            ("redis eviction", redis_rules.eviction_fault(store)),
        ):
            yield Finding(name, "fault", *fault) if fault else Finding(name, "ok", "as needed")
        if store.info("persistence").get("aof_enabled"):
            yield Finding("redis persistence", "ok", "append-only file is on")
        else:
            yield Finding(
                "redis persistence",
                "warning",
                "the append-only file is off: a restart of Redis loses the newest refresh tokens",
                "set `appendonly yes` in the configuration of Redis",
            )
        yield _clock("redis", lambda: _redis_time(store))
        if find_schema(rooms) is None:
            return
        state = rooms.database.read(lambda tx: tx.get(ServerState, 1))
        known = store.ask_unverified(lambda client: cast("str | None", client.hget(STATE_KEY, "epoch")))
        if state is None or (known or "") == state.epoch:
            yield Finding("redis epoch", "ok", "Redis is the one that the database knows")
        else:
            yield Finding(
                "redis epoch",
                "warning",
                "Redis was emptied or replaced, or belongs to another deployment",
                "the server writes it again from the database at its next request; if this stays, see that no "
                "other deployment uses the same Redis database",
            )


def _clock(name: str, ask: Callable[[], float]) -> Finding:
    before = time.time()
    there = ask()
    after = time.time()
    # The question took a while: the clocks differ at least by this.
    skew = max(0.0, before - there, there - after)
    if skew <= SKEW_WARNING:
        return Finding(f"clock of {name}", "ok", "agrees with this machine")
    status: Status = "fault" if skew > SKEW_FAULT else "warning"
    detail = f"differs from this machine by {skew:.1f} s"
    return Finding(f"clock of {name}", status, detail, "let both machines set their clocks by NTP")


def _sql_time(rooms: "Rooms") -> float:
    query = "SELECT extract(epoch FROM clock_timestamp())"
    return float(rooms.database.read(lambda tx: tx.connection().exec_driver_sql(query).scalar_one()))


def _redis_time(store: Any) -> float:
    seconds, microseconds = store.ask_unverified(lambda client: client.time())
    return float(seconds) + float(microseconds) / 1e6


# The server itself


def server(settings: Settings) -> Iterator[Finding]:
    host = settings.host if settings.host not in EVERYWHERE else "::1" if ":" in settings.host else "127.0.0.1"
    connection = http.client.HTTPConnection(host, settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(4096)
    except ConnectionRefusedError:
        yield Finding("server", "ok", "is not running")
        return
    except (OSError, http.client.HTTPException) as error:
        detail = f"what listens on port {settings.port} does not answer ({type(error).__name__})"
        yield Finding("server", "fault", detail, "see the server's log; stop it if it stays like this")
        return
    finally:
        connection.close()
    try:
        missing = json.loads(text)["missing"]
    except (ValueError, TypeError, KeyError):
        detail = f"another program answers on port {settings.port}"
        yield Finding("server", "warning", detail, "stop it, or set TOKENSERVER_PORT")
        return
    if missing:
        detail = f"is running, but not ready: {', '.join(map(str, missing))}"
        yield Finding("server", "fault", detail, "see the findings above, and the server's log")
    else:
        yield Finding("server", "ok", "is running and ready")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
