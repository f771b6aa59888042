"""What `doctor` looks at, one function for each subject; SQL and Redis are in `store_checks`.

Nothing here changes anything.
"""

import http.client
import json
import shutil
import stat
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tokenserver.cli import store_checks
from tokenserver.cli.finding import INIT, Check, Finding
from tokenserver.config import Settings, is_loopback
from tokenserver.errors import ConfigurationError

LEAST_DISK: Final = 100 * 1024 * 1024
EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


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
    yield Check("database", lambda: store_checks.database(settings), see_sql)
    # An embedded Redis may have to be started for this, and to load its data.
    yield Check("redis", lambda: store_checks.redis(settings), see_redis, 60 if settings.embedded_redis else 15)
    yield Check(
        "mail", lambda: mail(settings), "see that the mail server is up and TOKENSERVER_SMTP_URL is right", 40
    )
    yield Check("server", lambda: server(settings), "stop what listens there, or set TOKENSERVER_PORT")


# Settings that don't fit together


def production(settings: Settings) -> Iterator[Finding]:
    faults = settings.production_faults()
    for fault in faults:
        yield Finding("production", "fault", fault, "correct it in the environment or in .env")
    if not faults and settings.env == "production":
        yield Finding("production", "ok", "its rules are kept")
    if settings.env == "production" and not settings.metrics_token:
        detail = "/metrics is closed to everybody, since there is no token for it"
        yield Finding(
            "metrics", "warning", detail, "set TOKENSERVER_METRICS_TOKEN: `openssl rand -hex 16` makes one"
        )
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
    from tokenserver.tokens import multi_buffer
    from tokenserver.tokens.key_ring import KeyRing
    from tokenserver.tokens.lanes import LANES

    ring = KeyRing(settings.keys_dir, jwks_max_age=settings.jwks_max_age, token_lifetime=settings.access_token_ttl)
    faults = ring.faults()
    for what, todo in faults:
        yield Finding("keys", "fault", what, todo)
    if faults:
        return
    for what, todo in ring.faults(settings.key_rotation_interval):
        yield Finding("key age", "warning", what, todo)
    ring.signer(settings.signing_alg)
    signs, fault = multi_buffer.found()
    detail = f"{len(ring.entries())} in {settings.keys_dir}, one signs {settings.signing_alg}"
    if signs:
        detail += f"; signatures up to {LANES} at a time"
    elif fault:
        detail += f"; signatures one at a time: {fault}"
    yield Finding("keys", "ok", detail)


def mail(settings: Settings) -> Iterator[Finding]:
    from tokenserver.mail.transport import NotSent, Smtp

    if not settings.smtp_url:
        if settings.sends_mail:
            yield Finding("mail", "ok", f"goes into {settings.data_dir / 'mail'}, as is good for development alone")
        else:
            detail = "none can be sent: no forgotten password, no confirmed address, no notice of a new device"
            yield Finding("mail", "warning", detail, "set TOKENSERVER_SMTP_URL")
        return
    if not settings.smtp_has_tls:
        detail = "TOKENSERVER_SMTP_URL goes over the network without TLS, links to set passwords too"
        yield Finding("mail", "warning", detail, "leave out ?starttls=off, unless the network itself is private")
    try:
        Smtp(settings).check()
    except NotSent as failure:
        yield Finding("mail", "fault", MAIL_FAULTS.get(failure.reason, failure.reason), "see TOKENSERVER_SMTP_URL")
    else:
        yield Finding("mail", "ok", f"the server takes mail from {settings.mail_sender}")


MAIL_FAULTS: Final = {
    "smtp_unreachable": "the mail server doesn't answer",
    "smtp_tls": "the certificate of the mail server isn't good: see TOKENSERVER_SMTP_CA_FILE",
    "smtp_authentication": "the mail server doesn't take the user and password",
    "smtp_not_supported": "the mail server offers no STARTTLS, or no way to sign in",
}


# The server itself


def server(settings: Settings) -> Iterator[Finding]:
    host = settings.host if settings.host not in EVERYWHERE else "::1" if ":" in settings.host else "127.0.0.1"
    connection = http.client.HTTPConnection(host, settings.port, timeout=3)
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
        answer = json.loads(text)
        missing = answer["missing"]
    except (ValueError, TypeError, KeyError):
        detail = f"another program answers on port {settings.port}"
        yield Finding("server", "warning", detail, "stop it, or set TOKENSERVER_PORT")
        return
    if missing:
        parts = answer.get("parts", {})  # for those who may know
        told = (f"{name}: {parts[name]}" if name in parts else str(name) for name in missing)
        detail = f"is running, but not ready: {', '.join(told)}"
        yield Finding("server", "fault", detail, "see the findings above, and the server's log")
    else:
        yield Finding("server", "ok", "is running and ready")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
