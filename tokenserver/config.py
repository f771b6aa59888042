"""Settings: every option typed, explained and checked; the only reader of the environment.

`docs/configuration.md` and `.env.example` are generated from the fields below (`make docs-generated`), and a test
holds them to it.
"""

import hashlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from dotenv import dotenv_values

from tokenserver.errors import ConfigurationError

PREFIX: Final = "TOKENSERVER_"
SIGNING_ALGS: Final = ("RS256", "PS256", "ES256", "EdDSA")
UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION: Final = re.compile(r"([0-9]{1,9}) ?([smhd]?)")
RATE: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})([smhd])")


class Rate(NamedTuple):
    """At most `quota` at once, and `quota` more in every `window` (s), one by one."""

    quota: int
    window: int

    def __str__(self) -> str:
        unit = next(unit for unit in ("d", "h", "m", "s") if self.window % UNIT_SECONDS[unit] == 0)
        return f"{self.quota}/{self.window // UNIT_SECONDS[unit]}{unit}"


def _text(value: str) -> str:
    if not value.strip() or any(ord(c) < 32 for c in value):
        raise ValueError("must be text without control characters")
    return value.strip()


def _word(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7E]+", value.strip()):
        raise ValueError("must be one word without spaces, such as a URL")
    return value.strip()


def _flag(value: str) -> bool:
    known = {"1": True, "on": True, "true": True, "yes": True, "0": False, "off": False, "false": False}
    known["no"] = False
    if value.lower() not in known:
        raise ValueError("must be on or off")
    return known[value.lower()]


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _duration(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        match = DURATION.fullmatch(value.strip())
        seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else -1
        if not low <= seconds <= high:
            raise ValueError(f"must be a duration from {low} s to {high} s, such as 300, 5m, 12h or 30d")
        return seconds

    return parse


def _rate(value: str) -> Rate:
    match = RATE.fullmatch(value.strip())
    quota, window = (int(match[1]), int(match[2]) * UNIT_SECONDS[match[3]]) if match else (0, 0)
    if quota < 1 or not 1 <= window <= 30 * 86400 or quota > 10_000 * window:
        raise ValueError("must be a rate, a number in a time up to 30 days, such as 20/12h or 500/1s")
    return Rate(quota, window)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return value

    return parse


def _path(value: str) -> Path:
    try:
        return Path(_text(value)).expanduser().absolute()
    except RuntimeError:
        raise ValueError("names the home of a user who isn't there") from None


def _folder(value: str) -> str:
    return str(_path(value))


def _long_word(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7E]{20,}", value):
        raise ValueError("must be at least 20 characters without spaces, as `openssl rand -hex 16` makes them")
    return value


def _file(value: str) -> str:
    path = _path(value)
    if not path.is_file():
        raise ValueError("must name a file that can be read")
    return str(path)


def _networks(value: str) -> str:
    try:
        return ",".join(str(ipaddress.ip_network(each.strip())) for each in value.split(","))
    except ValueError:
        raise ValueError("must be networks with commas between them, such as 10.0.0.0/8,fd00::/8") from None


def _issuer(value: str) -> str:
    value = _text(value)
    # RFC 8414 section 2: no query, no fragment. http is for loopback and development alone (checked below).
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[\s?#]", value):
        raise ValueError("must be an http or https URL without query and fragment")
    if "@" in parts.netloc or parts.path or value.endswith(":"):
        raise ValueError("must be scheme://host[:port] alone, without a user, a path or a final slash")
    return _with_usable_port(value)


def _web_url(value: str) -> str:
    value = _word(value)
    parts = urlsplit(value)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or re.search("[?#]", value)
    ):
        raise ValueError("must be an http or https URL without user, query and fragment")
    return _with_usable_port(value)


def _email(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        raise ValueError("must be an e-mail address")
    return value


def _database_url(value: str) -> str:
    if not value.startswith(("postgresql://", "cockroachdb://", "sqlite:///")):
        raise ValueError("must start with postgresql://, cockroachdb:// or sqlite:///")
    if "," in urlsplit(value).netloc:
        raise ValueError("lists several hosts in its query, as in postgresql:///db?host=a:5432&host=b:5432")
    return _with_usable_port(value)


def _redis_url(value: str) -> str:
    if not re.match(r"(rediss?(\+sentinel|\+cluster)?|unix)://", value):
        raise ValueError(
            "must start with redis://, unix://, redis+sentinel:// or redis+cluster://, or with rediss for TLS"
        )
    return _with_usable_port(value)


def _smtp_url(value: str) -> str:
    value = _word(value)
    parts = urlsplit(value)
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.fragment:
        raise ValueError("must be smtp://[user:password@]host[:port] or smtps://...")
    if parts.query not in ({"", "starttls", "starttls=off"} if parts.scheme == "smtp" else {""}):
        raise ValueError("takes no other option than ?starttls=off after smtp://")
    if bool(parts.username) != bool(parts.password):
        raise ValueError("needs both a user and a password, or neither")
    return _with_usable_port(value)


def _with_usable_port(url: str) -> str:
    parts = urlsplit(url)
    if "," not in parts.netloc:  # else a list of hosts
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("has a port that is not a number up to 65535") from None
    return url


def _option(default: Any, parse: Callable[[str], Any], doc: str, *, shown: str = "", secret: bool = False) -> Any:
    """One documented option. `shown`: the default as the manual prints it when it is computed."""
    metadata = {"parse": parse, "doc": doc, "shown": shown, "secret": secret}
    if isinstance(default, Path):
        return field(default_factory=default.absolute, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server was told. Built by `load`; tests may build it directly."""

    issuer: str = _option(
        "",
        _issuer,
        "The exact issuer, as clients and verifiers know this server. Never taken from a request. Unset, it "
        "follows host and port.",
        shown="`http://127.0.0.1:8000`",
    )
    host: str = _option("127.0.0.1", _text, "Address to listen on.")
    port: int = _option(8000, _whole(1, 65535), "Port to listen on.")
    workers: int = _option(
        max(1, os.cpu_count() or 1), _whole(1, 256), "Server processes.", shown="number of cores"
    )
    threads: int = _option(
        8,
        _whole(2, 64),
        "Requests that each process works at beside those for tokens and their like, which seldom ask SQL and wait "
        "for none of these. Password hashing never holds more than half of this number, so that a storm of "
        "sign-ins leaves some for the rest.",
    )
    own_cores: bool = _option(
        True,
        _flag,
        "Gives each process a core of its own, where there are as many cores as processes and no quota of a "
        "cgroup: half the waiting under load. Password hashes run on any core.",
        shown="`on`",
    )
    data_dir: Path = _option(Path("var"), _path, "Folder of the embedded SQLite and Redis files.", shown="`var`")
    keys_dir: Path = _option(
        Path("keys"), _path, "Folder of the signing key ring, shared by all nodes.", shown="`keys`"
    )
    database_url: str = _option(
        "",
        _database_url,
        "`postgresql://user@host/db`, or `cockroachdb://…?sslmode=verify-full&sslrootcert=…&sslcert=…&sslkey=…`.",
        shown="embedded SQLite in the data folder",
        secret=True,
    )
    database_timeout: int = _option(
        8,
        _duration(1, 300),
        "Seconds that PostgreSQL or CockroachDB may take for one statement of a request, and half of them for a "
        "lock; then the request is answered 503. Migrations and the server's own chores take longer.",
    )
    redis_url: str = _option(
        "",
        _redis_url,
        "`redis://`, `unix://`, `redis+sentinel://host:port,host:port/service/db`, "
        "`redis+cluster://host:port,host:port`; with TLS `rediss://`, `rediss+sentinel://`, `rediss+cluster://`.",
        shown="embedded Redis in the data folder, append-only file on",
        secret=True,
    )
    admin_email: str = _option(
        "",
        _email,
        "E-mail address of the first admin; used only while no admin exists.",
        shown="`admin@localhost`",
    )
    admin_password: str = _option(
        "",
        str,
        "Password of the first admin; used only while no admin exists.",
        shown="generated, printed once",
        secret=True,
    )
    access_token_ttl: int = _option(
        300, _duration(30, 86400), "Lifetime of access tokens. Seconds, or with a unit: `5m`, `1h`."
    )
    refresh_token_ttl: int = _option(
        30 * 86400,
        _duration(60, 3650 * 86400),
        "Absolute lifetime of a session's refresh tokens, counted from the sign-in. No rotation moves it.",
        shown="`30d`",
    )
    refresh_idle_ttl: int = _option(
        7 * 86400, _duration(30, 3650 * 86400), "A refresh token unused for so long is dead.", shown="`7d`"
    )
    refresh_grace: int = _option(
        10,
        _duration(0, 60),
        "For so long after a rotation the token it consumed is answered with the same successor again, for "
        "clients that lost the answer or raced themselves. `0`: strict single use.",
        shown="`10`",
    )
    signing_alg: str = _option("RS256", _one_of(*SIGNING_ALGS), "JWS algorithm: " + ", ".join(SIGNING_ALGS) + ".")
    audience: str = _option(
        "",
        _word,
        "`aud` of access tokens of clients that registered no audience of their own; this server's own routes "
        "require it.",
        shown="the issuer",
    )
    jwks_max_age: int = _option(
        300, _duration(10, 86400), "How long verifiers may cache the JWKS; a new key waits so long unused."
    )
    audit_access: str = _option(
        "all",
        _one_of("all", "denied"),
        "Which decisions about access the log keeps: all, or only denials. The statistics count all.",
    )
    audit_retention: int = _option(
        365 * 86400,
        _duration(0, 3650 * 86400),
        "Events older than this are deleted, with a signed note that keeps the rest provable. 0: never.",
        shown="`365d`",
    )
    key_rotation_interval: int = _option(
        90 * 86400,
        _duration(0, 3650 * 86400),
        "Age at which the active signing key is replaced by itself. `0`: only by command.",
        shown="`90d`",
    )
    browser_session_ttl: int = _option(
        86400,
        _duration(60, 3650 * 86400),
        "How long a sign-in in a browser lasts at most. Refresh tokens issued in it without `offline_access` end "
        "with it.",
        shown="`1d`",
    )
    browser_session_idle_ttl: int = _option(
        2 * 3600, _duration(30, 3650 * 86400), "A browser that was away for so long signs in again.", shown="`2h`"
    )
    client_registration: str = _option(
        "token",
        _one_of("open", "token", "closed"),
        "Who may register OAuth clients at `/oauth/register` (RFC 7591): everybody, who holds an initial access "
        "token (`tokenserver client invite`), or nobody.",
    )
    fetch_private: str = _option(
        "",
        _networks,
        "Networks, as `10.0.0.0/8,127.0.0.0/8`, that the server may fetch from although they are not public, and "
        "by http too: `jwks_uri`, `request_uri`, `sector_identifier_uri`, back-channel logout.",
        shown="none",
    )
    fetch_ca_file: str = _option(
        "",
        _file,
        "PEM file of certificate authorities to trust in such fetches beside the system's.",
        shown="none",
    )
    registration: str = _option("open", _one_of("open", "closed"), "Who may call `POST /auth/register`.")
    smtp_url: str = _option(
        "",
        _smtp_url,
        "The server that takes mail: `smtp://user:password@host:587`, with STARTTLS or not at all, or "
        "`smtps://user:password@host:465`. `smtp://host:25?starttls=off` for one on a network of yours.",
        shown="none; in development mail goes into the folder `mail` of the data folder",
        secret=True,
    )
    smtp_ca_file: str = _option(
        "",
        _file,
        "PEM file of certificate authorities that the mail server may be known by, beside the system's.",
        shown="none",
    )
    mail_sender: str = _option("", _email, "Address that mail is from.", shown="`no-reply@` and the issuer's host")
    breached_passwords_url: str = _option(
        "",
        _web_url,
        "Where new passwords are looked up that are known from breaches, such as "
        "`https://api.pwnedpasswords.com/range`: five hexadecimal digits of a password's SHA-1 digest are appended "
        "and sent, no more. The 100,000 most common passwords are refused without it.",
        shown="none",
    )
    breached_passwords_away: str = _option(
        "accept",
        _one_of("accept", "refuse"),
        "While that can't be asked: accept a new password that is good otherwise, and log it; or answer 503.",
    )
    rate_limits: bool = _option(
        True,
        _flag,
        "All limits of the lines below and those of [limits](limits.md). `off` only for benchmarks.",
        shown="`on`",
    )
    limit_login: Rate = _option(
        Rate(20, 12 * 3600),
        _rate,
        "Failed sign-ins of one account from one network: an IPv4 address, an IPv6 /64. `20/12h`: 20 at once, then "
        "one every 36 minutes.",
    )
    limit_login_network: Rate = _option(Rate(100, 100), _rate, "Failed sign-ins of one network, over all accounts.")
    limit_login_account: Rate = _option(
        Rate(40, 12 * 3600),
        _rate,
        "Failed sign-ins of one account, over all networks; its user name and its e-mail address count each by "
        "itself. Known devices, known networks and second factors pass it.",
    )
    limit_login_known: Rate = _option(
        Rate(10, 12 * 3600),
        _rate,
        "Failed sign-ins that pass the limit above, of one device or one network.",
    )
    limit_register: Rate = _option(
        Rate(100, 200), _rate, "Registrations of users, and registrations of clients, from one network."
    )
    limit_token: Rate = _option(
        Rate(5000, 1),
        _rate,
        "Token requests of one client, in each process; those of a public client by network.",
    )
    limit_introspection: Rate = _option(Rate(10000, 1), _rate, "Introspections of one client, in each process.")
    limit_revocation: Rate = _option(Rate(1000, 1), _rate, "Revocations of one client, in each process.")
    limit_client_authentication: Rate = _option(
        Rate(60, 600),
        _rate,
        "Failed authentications of one client from one network; and of one network over all clients, ten times as "
        "many.",
    )
    limit_device: Rate = _option(
        Rate(60, 120), _rate, "Device authorizations of one client from one network (RFC 8628)."
    )
    limit_user_code: Rate = _option(
        Rate(10, 600), _rate, "Wrong user codes of one user, and of one network (RFC 8628 section 5.1)."
    )
    limit_authorize: Rate = _option(
        Rate(300, 150), _rate, "Sign-ins that one network begins: authorization requests that have to ask somebody."
    )
    trusted_proxies: int = _option(0, _whole(0, 10), "Hops of `X-Forwarded-*` to believe.")
    env: str = _option(
        "development",
        _one_of("development", "production"),
        "`production` refuses an http issuer on a host that isn't loopback, embedded stores, and connections to "
        "SQL, Redis or a mail server without TLS, and rate limits off.",
    )
    allow_plaintext: bool = _option(
        False,
        _flag,
        "Lets `production` talk to SQL, Redis and a mail server without TLS, where the network itself is private.",
        shown="`off`",
    )
    drain_delay: int = _option(
        -1,
        _duration(0, 300),
        "When the server is asked to end, it goes on answering for so long while `/readyz` says 503, so that a "
        "balancer moves away before the server stops listening. Longer than the balancer takes to notice.",
        shown="none; 5 s in production",
    )
    log_level: str = _option("info", _one_of("debug", "info", "warning", "error"), "How much is logged.")
    log_format: str = _option(
        "",
        _one_of("json", "text"),
        "`json`: one object a line, for programs; `text`: lines for people. [Metrics and logs](metrics.md) has the "
        "fields.",
        shown="`text`; `json` in production",
    )
    otlp_url: str = _option(
        "",
        _web_url,
        "OpenTelemetry collector that takes traces by OTLP over HTTP, such as `http://127.0.0.1:4318`. Needs the "
        "extra `otel`.",
        shown="none: no traces",
    )
    trace_percent: int = _option(
        10,
        _whole(0, 100),
        "How many of the traces that begin here are recorded. Behind trusted proxies, `traceparent` says "
        "it for those that bring one.",
    )
    metrics_token: str = _option(
        "",
        _long_word,
        "Whoever sends it as a bearer token may read `/metrics` and the details of `/readyz`. At least 20 "
        "characters.",
        shown="none: in development this machine may read them, in production nobody",
        secret=True,
    )
    metrics_dir: str = _option(
        "",
        _folder,
        "Folder in which the processes of one node share their metrics. `tokenserver serve` makes one for itself; "
        "under another WSGI server, name one that no other node uses.",
        shown="none",
    )

    def __post_init__(self) -> None:
        set_default = object.__setattr__  # frozen: defaults that follow other options are filled in here
        if not self.issuer:
            host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - read, not bound
            set_default(self, "issuer", f"http://{f'[{host}]' if ':' in host else host}:{self.port}")
        if not self.mail_sender:
            set_default(self, "mail_sender", f"no-reply@{_mail_domain(urlsplit(self.issuer).hostname or '')}")
        if not self.audience:
            set_default(self, "audience", self.issuer)
        if self.drain_delay < 0:
            set_default(self, "drain_delay", 5 if self.env == "production" else 0)
        if not self.log_format:
            set_default(self, "log_format", "json" if self.env == "production" else "text")
        if self.refresh_idle_ttl > self.refresh_token_ttl:
            set_default(self, "refresh_idle_ttl", self.refresh_token_ttl)
        if self.browser_session_idle_ttl > self.browser_session_ttl:
            set_default(self, "browser_session_idle_ttl", self.browser_session_ttl)

    @property
    def embedded_database(self) -> bool:
        return not self.database_url

    @property
    def embedded_redis(self) -> bool:
        return not self.redis_url

    @property
    def sends_mail(self) -> bool:
        """In development, into a folder."""
        return bool(self.smtp_url) or self.env == "development"

    @property
    def redis_socket(self) -> Path:
        """In the data folder, or in a short private folder where the kernel can't take so long a path."""
        data_dir = self.data_dir.absolute()
        if len(os.fsencode(data_dir / "redis.sock")) <= 103:  # sun_path: 107 bytes on Linux, 103 elsewhere
            return data_dir / "redis.sock"
        name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"tokenserver-{os.getuid()}-{name}", "redis.sock")

    @property
    def sqlalchemy_url(self) -> str:
        if self.embedded_database:
            return f"sqlite:///{self.data_dir / 'tokenserver.sqlite'}"
        scheme, rest = self.database_url.split("://", 1)
        return f"postgresql+psycopg2://{rest}" if scheme == "postgresql" else self.database_url

    @property
    def redis_connection_url(self) -> str:
        return self.redis_url or f"unix://{quote(str(self.redis_socket))}"

    def production_faults(self) -> list[str]:
        """What `production` refuses to start with, one line each, naming the variable."""
        if self.env != "production":
            return []
        faults = []
        issuer = urlsplit(self.issuer)
        if issuer.scheme != "https" and not is_loopback(issuer.hostname or ""):
            faults.append("TOKENSERVER_ISSUER must be https in production")
        if self.sqlalchemy_url.startswith("sqlite"):
            faults.append("TOKENSERVER_DATABASE_URL must name a PostgreSQL or CockroachDB server in production")
        elif not self.allow_plaintext and not _sql_has_tls(self.database_url):
            faults.append(
                "TOKENSERVER_DATABASE_URL needs sslmode=verify-full, verify-ca or require in production "
                "(or TOKENSERVER_ALLOW_PLAINTEXT=1)"
            )
        if self.embedded_redis:
            faults.append("TOKENSERVER_REDIS_URL must name a Redis server in production")
        elif not self.allow_plaintext and not _redis_has_tls(self.redis_url):
            faults.append("TOKENSERVER_REDIS_URL needs rediss:// in production (or TOKENSERVER_ALLOW_PLAINTEXT=1)")
        if self.smtp_url and not self.allow_plaintext and not self.smtp_has_tls:
            faults.append("TOKENSERVER_SMTP_URL needs TLS in production (or TOKENSERVER_ALLOW_PLAINTEXT=1)")
        if not self.rate_limits:
            faults.append("TOKENSERVER_RATE_LIMITS must stay on in production")
        return faults

    @property
    def database_has_tls(self) -> bool:
        """Or never leaves the machine."""
        return self.embedded_database or self.database_url.startswith("sqlite") or _sql_has_tls(self.database_url)

    @property
    def smtp_has_tls(self) -> bool:
        """Or never leaves the machine."""
        parts = urlsplit(self.smtp_url)
        return parts.query != "starttls=off" or is_loopback(parts.hostname or "")

    @property
    def redis_has_tls(self) -> bool:
        """Or never leaves the machine."""
        return self.embedded_redis or _redis_has_tls(self.redis_url)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> "Settings":
        """From the environment and `.env` of the working folder; the environment wins.

        Raises ConfigurationError naming the variable.
        """
        settings = cls.read(environ, dotenv)
        faults = settings.production_faults()
        if faults:
            raise ConfigurationError("; ".join(faults))
        return settings

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> "Settings":
        """Like `load`, without the rules of `production`."""
        dotenv = dotenv or Path(".env")
        try:
            given = {k: v or "" for k, v in dotenv_values(dotenv).items()} if dotenv.is_file() else {}
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"{dotenv.name} can't be read as UTF-8 text") from None
        given |= os.environ if environ is None else environ
        options = {environment_name(f): f for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, raw in sorted(given.items()):
            # TOKENSERVER_TEST_* belongs to the test suite
            if not name.startswith(PREFIX) or name.startswith(PREFIX + "TEST_"):
                continue
            option = options.get(name)
            if option is None:
                raise ConfigurationError(f"{name}: no such setting; docs/configuration.md lists them all")
            if raw == "":
                continue  # as in `TOKENSERVER_PORT= make run`: the default
            try:
                values[option.name] = option.metadata["parse"](raw)
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
        return cls(**values)

    def environment(self) -> dict[str, str]:
        """What another process has to find in its environment to `load` the same, whatever its working folder."""
        values = {environment_name(option): getattr(self, option.name) for option in fields(self)}
        return {k: ("off", "on")[v] if isinstance(v, bool) else str(v) for k, v in values.items()}


def environment_name(option: "Field[Any]") -> str:
    return PREFIX + option.name.upper()


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _mail_domain(host: str) -> str:
    """RFC 5321 section 4.1.3: an address in brackets is no name, but can be mailed from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return "localhost" if address.is_loopback else f"[{'IPv6:' * (address.version == 6)}{address}]"


def _sql_has_tls(url: str) -> bool:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if not parts.hostname and query.get("host", [""])[0].startswith("/"):
        return True  # a unix socket never leaves the machine
    return query.get("sslmode", [""])[0] in {"require", "verify-ca", "verify-full"}


def _redis_has_tls(url: str) -> bool:
    """Or never leaves the machine."""
    return urlsplit(url).scheme.partition("+")[0] in {"rediss", "unix"}
