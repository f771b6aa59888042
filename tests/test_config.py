"""Settings: every variable, its default, what it refuses, and what production refuses."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tokenserver.config import Rate, Settings, environment_name, is_loopback
from tokenserver.errors import ConfigurationError

POSTGRES = "postgresql://app@db.example/app"
REDIS = "redis://cache.example:6379/0"

# Variable: default; a spelling and what it means, more than once where there are several ways to say it.
OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ISSUER": (
        "http://127.0.0.1:8000",
        {
            "https://id.example": "https://id.example",
            "https://id.example:8443": "https://id.example:8443",
            " https://id.example ": "https://id.example",
            "http://[::1]:8000": "http://[::1]:8000",
        },
    ),
    "HOST": ("127.0.0.1", {"0.0.0.0": "0.0.0.0", "::1": "::1"}),
    "PORT": (8000, {"1": 1, "65535": 65535}),
    "WORKERS": (max(1, os.cpu_count() or 1), {"3": 3}),
    "THREADS": (8, {"2": 2, "64": 64}),
    "DATA_DIR": (Path("var"), {"/srv/data": Path("/srv/data"), "data": Path("data")}),
    "KEYS_DIR": (Path("keys"), {"~/keys": Path("~/keys").expanduser()}),
    "DATABASE_URL": ("", {POSTGRES: POSTGRES, "sqlite:////srv/db.sqlite": "sqlite:////srv/db.sqlite"}),
    "DATABASE_TIMEOUT": (8, {"1": 1, "20s": 20, "5m": 300}),
    "REDIS_URL": ("", {url: url for url in (REDIS, "rediss://r", "unix:///run/r.sock", "redis+cluster://a:1,b:2")}),
    "ADMIN_EMAIL": ("", {"admin@example.org": "admin@example.org"}),
    "ADMIN_PASSWORD": ("", {"pass word ": "pass word "}),
    "ACCESS_TOKEN_TTL": (300, {"30": 30, "60s": 60, "5m": 300, "1h": 3600, "24 h": 86400, "1d": 86400}),
    "REFRESH_TOKEN_TTL": (30 * 86400, {"60d": 60 * 86400}),
    "REFRESH_IDLE_TTL": (7 * 86400, {"12h": 12 * 3600}),
    "REFRESH_GRACE": (10, {"0": 0, "60": 60}),
    "SIGNING_ALG": ("RS256", {alg: alg for alg in ("RS256", "PS256", "ES256", "EdDSA")}),
    "AUDIENCE": ("http://127.0.0.1:8000", {"https://api.example": "https://api.example", "api": "api"}),
    "JWKS_MAX_AGE": (300, {"10m": 600}),
    "AUDIT_ACCESS": ("all", {"all": "all", "denied": "denied"}),
    "AUDIT_RETENTION": (365 * 86400, {"0": 0, "90d": 90 * 86400}),
    "KEY_ROTATION_INTERVAL": (90 * 86400, {"0": 0, "30d": 30 * 86400}),
    "BROWSER_SESSION_TTL": (86400, {"12h": 12 * 3600}),
    "BROWSER_SESSION_IDLE_TTL": (7200, {"30m": 1800}),
    "CLIENT_REGISTRATION": ("token", {word: word for word in ("open", "token", "closed")}),
    "FETCH_PRIVATE": ("", {"127.0.0.0/8, ::1": "127.0.0.0/8,::1/128"}),
    "FETCH_CA_FILE": ("", {__file__: __file__}),
    "REGISTRATION": ("open", {"open": "open", "closed": "closed"}),
    "SMTP_URL": (
        "",
        {
            url: url
            for url in (
                "smtp://mail.example",
                "smtp://u:p%40ss@mail.example:587?starttls",
                "smtp://10.0.0.7:25?starttls=off",
                "smtps://u:p@[::1]:465",
            )
        },
    ),
    "SMTP_CA_FILE": ("", {__file__: __file__}),
    "MAIL_SENDER": ("no-reply@localhost", {"id@example.org": "id@example.org"}),
    "BREACHED_PASSWORDS_URL": ("", {"https://a.example/range": "https://a.example/range"}),
    "BREACHED_PASSWORDS_AWAY": ("accept", {"accept": "accept", "refuse": "refuse"}),
    "RATE_LIMITS": (True, dict.fromkeys(("off", "0", "no", "false", "OFF"), False) | {"on": True, "1": True}),
    "OWN_CORES": (True, {"on": True, "off": False, "true": True, "0": False}),
    "LIMIT_LOGIN": (Rate(20, 43200), {"5/1m": Rate(5, 60), "1/1s": Rate(1, 1), "100/30d": Rate(100, 30 * 86400)}),
    "LIMIT_LOGIN_NETWORK": (Rate(100, 100), {"10000/1s": Rate(10000, 1)}),
    "LIMIT_LOGIN_ACCOUNT": (Rate(40, 43200), {"50/24h": Rate(50, 86400)}),
    "LIMIT_LOGIN_KNOWN": (Rate(10, 43200), {"20/1h": Rate(20, 3600)}),
    "LIMIT_REGISTER": (Rate(100, 200), {"10/1h": Rate(10, 3600)}),
    "LIMIT_TOKEN": (Rate(5000, 1), {"50/1s": Rate(50, 1)}),
    "LIMIT_INTROSPECTION": (Rate(10000, 1), {"50/1s": Rate(50, 1)}),
    "LIMIT_REVOCATION": (Rate(1000, 1), {"50/1s": Rate(50, 1)}),
    "LIMIT_CLIENT_AUTHENTICATION": (Rate(60, 600), {"10/1h": Rate(10, 3600)}),
    "LIMIT_DEVICE": (Rate(60, 120), {"10/1h": Rate(10, 3600)}),
    "LIMIT_USER_CODE": (Rate(10, 600), {"10/1h": Rate(10, 3600)}),
    "LIMIT_AUTHORIZE": (Rate(300, 150), {"10/1h": Rate(10, 3600)}),
    "TRUSTED_PROXIES": (0, {"2": 2}),
    "ENV": ("development", {"development": "development"}),
    "ALLOW_PLAINTEXT": (False, {"1": True, "yes": True, "true": True, "off": False}),
    "DRAIN_DELAY": (0, {"0": 0, "10s": 10, "5m": 300}),
    "LOG_LEVEL": ("info", {"debug": "debug", "error": "error"}),
    "LOG_FORMAT": ("text", {"json": "json"}),
    "OTLP_URL": ("", {"http://127.0.0.1:4318": "http://127.0.0.1:4318"}),
    "TRACE_PERCENT": (10, {"0": 0, "100": 100}),
    "METRICS_TOKEN": ("", {"0123456789abcdef0123": "0123456789abcdef0123"}),
    "METRICS_DIR": ("", {"/run/metrics": "/run/metrics"}),
}
RATES: tuple[str, ...] = (
    "0/1h",
    "20",
    "20/h",
    "20/0s",
    "20/31d",
    "1.5/1h",
    "-1/1h",
    "20/1w",
    "10001/1s",
    "20/1h/1h",
    "a",
)
REFUSED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((name for name in OPTIONS if name.startswith("LIMIT_")), RATES),
    "ISSUER": (
        *(
            "id.example",
            "ftp://id.example",
            "https://",
            "https:///x",
            "https://id.example/",
            "https://id.example/a",
        ),
        *("https://id.example?a=b", "https://id.example?", "https://id.example#", "https://id.example#a"),
        *("https://u@id.example", "https://u:p@id.example", "https://@id.example", "https://id example"),
        *("https://id.example:abc", "https://id.example:99999", "https://id.example:", "https://[::1", "a\nb"),
    ),
    "HOST": (" ", "a\x00b"),
    "PORT": ("0", "65536", "-1", "80.0", "eighty", "0x50", "８０", "1e3", " "),
    "WORKERS": ("0", "257", "many"),
    "THREADS": ("1", "65"),
    "DATA_DIR": (" ", "a\nb", "~nobody-by-this-name/x"),
    "KEYS_DIR": ("\t",),
    "DATABASE_URL": (
        "mysql://x",
        "postgres://x",
        "postgresql:x",
        "sqlite://x",
        "POSTGRESQL://x",
        "postgresql://h:x/d",
        "postgresql://a:5432,b:5432/app",
    ),
    "DATABASE_TIMEOUT": ("0", "301", "1h"),
    "REDIS_URL": ("http://x", "redis:x", "localhost:6379", "redis://h:99999"),
    "ADMIN_EMAIL": ("admin", "a@b@c", "a b@c"),
    "ACCESS_TOKEN_TTL": ("29", "0", "2d", "5 minutes", "-5m", "1.5h", "m", "5w"),
    "REFRESH_TOKEN_TTL": ("59", "4000d"),
    "REFRESH_IDLE_TTL": ("29",),
    "REFRESH_GRACE": ("61", "-1"),
    "SIGNING_ALG": ("none", "HS256", "rs256", "RS512"),
    "AUDIENCE": (" ", "a\x00b", "two words", "é"),
    "JWKS_MAX_AGE": ("9", "2d"),
    "AUDIT_ACCESS": ("none", "ALL"),
    "AUDIT_RETENTION": ("-1", "for ever"),
    "KEY_ROTATION_INTERVAL": ("-1", "x"),
    "BROWSER_SESSION_TTL": ("0", "59", "-1"),
    "BROWSER_SESSION_IDLE_TTL": ("0", "29", "1w"),
    "CLIENT_REGISTRATION": ("yes", "Open"),
    "FETCH_PRIVATE": ("localhost", "10.0.0.1/8", "10.0.0.0/33", ","),
    "FETCH_CA_FILE": ("/nowhere/ca.pem", "/"),
    "REGISTRATION": ("yes", "Open", "invite"),
    "SMTP_URL": (
        *(
            "mail.example",
            "http://mail.example",
            "smtp://",
            "smtp://mail.example/path",
            "smtp://mail.example:99999",
        ),
        *("smtp://mail.example?starttls=no", "smtps://mail.example?starttls=off", "smtp://u@mail.example"),
    ),
    "SMTP_CA_FILE": ("/nowhere/ca.pem", "/"),
    "MAIL_SENDER": ("nobody", "a@b@c", "a b@c"),
    "BREACHED_PASSWORDS_URL": ("a.example/range", "ftp://a/", "https://u@a/", "https://a/?b", "https://a:99999/"),
    "BREACHED_PASSWORDS_AWAY": ("on", "Accept"),
    "RATE_LIMITS": ("maybe", "2"),
    "OWN_CORES": ("maybe", "2"),
    "TRUSTED_PROXIES": ("-1", "11", "yes"),
    "ENV": ("prod", "Production"),
    "ALLOW_PLAINTEXT": ("2",),
    "DRAIN_DELAY": ("-1", "6m"),
    "LOG_LEVEL": ("INFO", "trace"),
    "LOG_FORMAT": ("JSON", "xml"),
    "OTLP_URL": ("127.0.0.1:4318", "grpc://collector", "http://u:p@collector"),
    "TRACE_PERCENT": ("-1", "101", "half"),
    "METRICS_TOKEN": ("short", "0123456789 0123456789"),
    "METRICS_DIR": ("a\nb",),
}
PRODUCTION = {
    "TOKENSERVER_ENV": "production",
    "TOKENSERVER_ISSUER": "https://id.example",
    "TOKENSERVER_DATABASE_URL": f"{POSTGRES}?sslmode=verify-full",
    "TOKENSERVER_REDIS_URL": "rediss://cache.example",
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody's `.env`."""
    monkeypatch.chdir(tmp_path)


def load(**variables: str) -> Settings:
    return Settings.load({f"TOKENSERVER_{name}": value for name, value in variables.items()})


def test_the_tables_above_name_every_option():
    names = {environment_name(option).removeprefix("TOKENSERVER_") for option in fields(Settings)}
    assert OPTIONS.keys() == names
    assert names - REFUSED.keys() == {"ADMIN_PASSWORD"}  # whether it is one, `identity.passwords` says


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_default_and_reads_its_variable(name: str):
    default, spellings = OPTIONS[name]

    def read(**variables: str) -> Any:
        return getattr(load(**variables), name.lower())

    def absolute(meaning: Any) -> Any:
        return meaning.absolute() if isinstance(meaning, Path) else meaning

    assert read() == absolute(default)
    # As in `TOKENSERVER_PORT= make run`, and in a line of `.env` without a value.
    assert read(**{name: ""}) == absolute(default)
    for spelling, meaning in spellings.items():
        assert read(**{name: spelling}) == absolute(meaning)


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_can_t_be_used_stops_the_start_with_one_line_that_names_it(name: str):
    for value in REFUSED[name]:
        with pytest.raises(ConfigurationError) as caught:
            load(**{name: value})
        assert str(caught.value).startswith(f"TOKENSERVER_{name}: "), value
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["PROT", "port", "ISSUER_", "", "SECRET_KEY"])
def test_an_unknown_name_stops_the_start(name: str):
    with pytest.raises(ConfigurationError, match=f"^TOKENSERVER_{name}: no such setting"):
        load(**{name: "8000"})


def test_what_belongs_to_others_is_left_alone():
    others = {"PORT": "1", "tokenserver_port": "1", "TOKENSERVERPORT": "1", "TOKENSERVER_TEST_DATABASE_URL": "x"}
    assert Settings.load(others) == Settings.load({})


def test_a_secret_is_not_told_by_the_error():
    for name in ("DATABASE_URL", "REDIS_URL"):
        with pytest.raises(ConfigurationError) as caught:
            load(**{name: "mysql://app:hunter2@db.example:x/app"})
        assert "hunter2" not in str(caught.value)


class TestDotenv:
    def test_the_environment_wins(self, tmp_path: Path):
        (tmp_path / ".env").write_text(
            "# a comment\nTOKENSERVER_PORT=9000\nexport TOKENSERVER_THREADS='4'\nOTHER=x\nTOKENSERVER_ENV=\n"
        )
        settings = Settings.load({"TOKENSERVER_PORT": "9001"})
        assert (settings.port, settings.threads, settings.env) == (9001, 4, "development")
        assert Settings.load({}).port == 9000
        # An empty variable hides the file's line: the default again.
        assert Settings.load({"TOKENSERVER_PORT": ""}).port == 8000

    def test_the_real_environment_is_read(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("TOKENSERVER_PORT", "9002")
        assert Settings.load().port == 9002

    def test_its_names_and_values_are_checked_too(self, tmp_path: Path):
        for line, message in (
            ("TOKENSERVER_PROT=1", "TOKENSERVER_PROT: no such setting"),
            ("TOKENSERVER_PORT=x", "TOKENSERVER_PORT: must be"),
        ):
            (tmp_path / ".env").write_text(line)
            with pytest.raises(ConfigurationError, match=f"^{message}"):
                Settings.load({})

    def test_a_file_that_is_no_text_stops_the_start(self, tmp_path: Path):
        (tmp_path / ".env").write_bytes(b"TOKENSERVER_ADMIN_PASSWORD=\xff\xfe\n")
        with pytest.raises(ConfigurationError, match=r"^\.env can't be read"):
            Settings.load({})


class TestWhatFollows:
    @pytest.mark.parametrize(
        ("host", "issuer"),
        [
            ("127.0.0.1", "http://127.0.0.1:9000"),
            ("0.0.0.0", "http://127.0.0.1:9000"),
            ("::", "http://127.0.0.1:9000"),
            ("::1", "http://[::1]:9000"),
            ("localhost", "http://localhost:9000"),
        ],
    )
    def test_issuer_follows_host_and_port(self, host: str, issuer: str):
        settings = load(HOST=host, PORT="9000")
        assert (settings.issuer, settings.audience) == (issuer, issuer)
        assert load(HOST=host, PORT="9000", ISSUER="https://id.example").issuer == "https://id.example"

    def test_audience_follows_the_issuer(self):
        assert load(ISSUER="https://id.example").audience == "https://id.example"
        assert load(ISSUER="https://id.example", AUDIENCE="api").audience == "api"

    def test_idle_lifetime_is_never_longer_than_the_absolute_one(self):
        assert load(REFRESH_TOKEN_TTL="1h").refresh_idle_ttl == 3600
        assert load(REFRESH_TOKEN_TTL="1h", REFRESH_IDLE_TTL="2h").refresh_idle_ttl == 3600

    def test_stores_are_embedded_unless_named(self):
        embedded, named = load(DATA_DIR="/srv/data"), load(DATABASE_URL=POSTGRES, REDIS_URL=REDIS)
        assert (embedded.embedded_database, embedded.embedded_redis) == (True, True)
        assert embedded.sqlalchemy_url == "sqlite:////srv/data/tokenserver.sqlite"
        assert embedded.redis_connection_url == "unix:///srv/data/redis.sock"
        assert (named.embedded_database, named.embedded_redis) == (False, False)
        assert named.sqlalchemy_url == "postgresql+psycopg2://app@db.example/app"
        assert named.redis_connection_url == REDIS

    def test_another_process_reads_the_same(self, tmp_path: Path):
        settings = Settings.load(PRODUCTION | {"TOKENSERVER_ALLOW_PLAINTEXT": "1", "TOKENSERVER_THREADS": "4"})
        (tmp_path / ".env").write_text("TOKENSERVER_THREADS=5")
        assert Settings.load(settings.environment()) == settings


class TestProduction:
    def test_what_it_accepts(self):
        for change in (
            {},
            {"DATABASE_URL": f"{POSTGRES}?sslmode=require"},
            {"DATABASE_URL": f"{POSTGRES}?sslmode=verify-ca"},
            {"DATABASE_URL": "cockroachdb://app@db.example/app?sslmode=verify-full"},
            {"DATABASE_URL": "postgresql:///app?host=/run/postgresql"},
            {"REDIS_URL": "unix:///run/redis.sock"},
            {"DATABASE_URL": POSTGRES, "REDIS_URL": REDIS, "ALLOW_PLAINTEXT": "1"},
            {"ISSUER": "http://127.0.0.1:8000"},
            {"ISSUER": "http://id.localhost"},
        ):
            assert (
                Settings.load(PRODUCTION | {f"TOKENSERVER_{k}": v for k, v in change.items()}).env == "production"
            )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ISSUER", "http://id.example"),
            ("ISSUER", "http://127.0.0.1.evil.example"),
            ("ISSUER", "http://localhost.evil.example"),
            ("DATABASE_URL", ""),
            ("DATABASE_URL", POSTGRES),
            ("DATABASE_URL", f"{POSTGRES}?sslmode=prefer"),
            ("DATABASE_URL", f"{POSTGRES}?sslmode=disable"),
            ("DATABASE_URL", f"{POSTGRES}?host=/run/postgresql"),
            ("DATABASE_URL", "sqlite:////srv/db.sqlite"),
            ("REDIS_URL", ""),
            ("REDIS_URL", REDIS),
            ("REDIS_URL", "redis+sentinel://a:1,b:2/main/0"),
            ("SMTP_URL", "smtp://mail.example:25?starttls=off"),
            ("RATE_LIMITS", "off"),
        ],
    )
    def test_what_it_refuses(self, name: str, value: str):
        with pytest.raises(ConfigurationError) as caught:
            Settings.load(PRODUCTION | {f"TOKENSERVER_{name}": value})
        assert str(caught.value).startswith(f"TOKENSERVER_{name} ")

    def test_private_networks_excuse_plaintext_and_nothing_else(self):
        allowed = PRODUCTION | {"TOKENSERVER_ALLOW_PLAINTEXT": "1"}
        for name, value in (("ISSUER", "http://id.example"), ("DATABASE_URL", ""), ("REDIS_URL", "")):
            with pytest.raises(ConfigurationError, match=f"^TOKENSERVER_{name} "):
                Settings.load(allowed | {f"TOKENSERVER_{name}": value})

    def test_sqlite_is_an_embedded_store_wherever_its_file_is(self):
        variables = {"TOKENSERVER_DATABASE_URL": "sqlite:////srv/db.sqlite", "TOKENSERVER_ALLOW_PLAINTEXT": "1"}
        with pytest.raises(ConfigurationError):
            Settings.load(PRODUCTION | variables)

    def test_every_fault_is_told_at_once(self):
        with pytest.raises(ConfigurationError) as caught:
            Settings.load({"TOKENSERVER_ENV": "production", "TOKENSERVER_ISSUER": "http://id.example"})
        for name in ("ISSUER", "DATABASE_URL", "REDIS_URL"):
            assert f"TOKENSERVER_{name} " in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        *((host, True) for host in ("localhost", "id.localhost", "127.0.0.1", "127.8.9.10", "::1")),
        *(
            (host, False)
            for host in ("", "0.0.0.0", "localhost.evil.example", "10.0.0.1", "evillocalhost", "127.0.0.1.x")
        ),
    ],
)
def test_loopback(host: str, answer: bool):
    assert is_loopback(host) == answer


def test_production_drains_by_itself():
    settings = Settings.load(PRODUCTION)
    assert settings.drain_delay == 5
    assert Settings.load(PRODUCTION | {"TOKENSERVER_DRAIN_DELAY": "0"}).drain_delay == 0
    assert Settings.load(settings.environment()).drain_delay == 5
