"""Real stores for every test: PostgreSQL and Redis from wheels that carry the servers, SQLite from Python itself.

Tests that take `app` or `client` run once on SQLite and once on PostgreSQL, each with an empty database of its own.
"""

import logging
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings as hypothesis_settings
from redis.connection import AbstractConnection
from sqlalchemy import delete

from tests import thrift
from tests.postgres_servers import tls_postgres_server
from tests.redis_servers import SHARED, TOPOLOGY, Topology
from tests.thrift import PostgresCopies, hard_hashes  # noqa: F401 - a fixture
from tokenserver import first_start
from tokenserver.app import create_app, rooms_of
from tokenserver.config import Settings
from tokenserver.rooms import Rooms
from tokenserver.signals import lines
from tokenserver.storage.feed import FeedRow
from tokenserver.storage.redis_client import Line
from tokenserver.tokens import multi_buffer
from tokenserver.web import request_context

# A server of the reader's own, such as CockroachDB, for which no package carries one.
EXTERNAL = os.environ.get("TOKENSERVER_TEST_DATABASE_URL", "")
# Why Intel's library doesn't run here.
MULTI_BUFFER_FAULT = "" if multi_buffer.found().signs else multi_buffer.found().fault or "it is not installed"
BACKENDS = ("sqlite", "postgresql", *(["external"] if EXTERNAL else []))
PASSWORD = "correct horse 7 battery"
ADMIN_PASSWORD = "first admin of the tests"

# The same examples in every run, however slow the machine; `--hypothesis-profile=default` looks for others.
hypothesis_settings.load_profile("ci")
thrift.begin()
# Whoever starts the tests in the background lets SIGINT be ignored, which the servers and commands would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    thrift.forget_what_is_there()


LEVEL = logging.getLogger().level


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that a test, or the fixture of a module, runs in this process decides how the process logs."""
    _log_as_at_the_start()
    yield
    _log_as_at_the_start()


def _log_as_at_the_start() -> None:
    root = logging.getLogger()
    # pytest's own are of classes of their own.
    root.handlers[:] = [each for each in root.handlers if type(each) is not logging.StreamHandler]
    root.setLevel(LEVEL)
    logging.captureWarnings(False)
    lines.configure("", "")


@pytest.fixture(autouse=True)
def no_request() -> None:
    """What a test records by itself is not of the request that the test before it made last."""
    request_context._current.set(None)


@pytest.fixture(scope="session")
def short_path() -> Iterator[Path]:
    """Unix sockets take short paths only."""
    path = thrift.temporary_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Topology]:
    with SHARED[TOPOLOGY]() as servers:
        yield servers


@pytest.fixture
def own_redis() -> Iterator[Topology]:
    """For tests that stop, kill or restore it."""
    with SHARED[TOPOLOGY]() as servers:
        yield servers


_databases = count(1)


@pytest.fixture
def redis_url(redis_server: Topology) -> str:
    """An empty database of the shared server, or the shared cluster, emptied."""
    return redis_server.fresh_url(next(_databases))


@pytest.fixture(scope="session")
def postgres(short_path: Path) -> Iterator[str]:
    """URL of a server, without a database name."""
    if os.environ.get("TOKENSERVER_TEST_POSTGRES_TLS") == "1":
        with tls_postgres_server(max_connections="200") as (tls, _):
            yield tls.url()
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(short_path))  # where pgserver keeps its locks
    import pgserver

    server = pgserver.get_server(short_path / "pg", cleanup_mode="stop")
    # What is written here need not survive a power cut.
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        server.psql(f"ALTER SYSTEM SET {setting} = off")
    server.psql("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def keys_dir(short_path: Path) -> Path:
    """One ring for all tests that don't change it: making RSA keys takes a while."""
    return short_path / "keys"


class Databases:
    """Makes migrated, initialised databases by copying one of each kind."""

    def __init__(self, folder: Path, postgres: str, keys_dir: Path, redis: Topology) -> None:
        self.folder = folder
        self.postgres = postgres
        self.keys_dir = keys_dir
        self.redis = redis
        self._templates: dict[str, str] = {}
        self._copies: PostgresCopies | None = None

    def _server(self, backend: str) -> str:
        return EXTERNAL if backend == "external" else self.postgres

    def _url(self, backend: str, name: str) -> str:
        before, _, query = self._server(backend).partition("?")
        return f"{before.rsplit('/', 1)[0]}/{name}?{query}"

    def _admin(self, backend: str, statement: str) -> None:
        url = Settings(database_url=self._server(backend)).sqlalchemy_url
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def empty(self, backend: str) -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        if backend == "sqlite":
            return f"sqlite:///{self.folder}/{name}.sqlite"
        self._admin(backend, f'CREATE DATABASE "{name}"')
        return self._url(backend, name)

    def fresh(self, backend: str) -> str:
        if backend not in self._templates or backend == "external":  # CockroachDB copies no databases
            url = self._templates[backend] = self.empty(backend)
            app = create_app(self.settings(url))
            list(first_start.prepare(rooms_of(app)))
            # What the first start told the others is old by the time that a test looks.
            rooms_of(app).database.write(lambda tx: tx.execute(delete(FeedRow)))
            rooms_of(app).database.engine.dispose()
            self.redis.fresh_url(0)  # a cluster has no other database, and is new to every SQL database
        template = self._templates[backend]
        if backend == "external":
            return template
        if backend == "sqlite":
            path = f"{self.folder}/t{uuid.uuid4().hex[:12]}.sqlite"
            shutil.copyfile(template.removeprefix("sqlite:///"), path)
            return f"sqlite:///{path}"
        if self._copies is None:
            self._copies = PostgresCopies(self.postgres, _name_of(template))
        return self._url(backend, self._copies.take())

    def give_back(self, backend: str, url: str) -> None:
        """What `fresh` made, when nobody uses it any more."""
        if backend == "sqlite":
            path = Path(url.removeprefix("sqlite:///"))
            for file in path.parent.glob(f"{path.name}*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()  # a test may have put a folder in its place
        elif self._copies is not None and backend != "external":
            self._copies.give_back(_name_of(url))

    def close(self) -> None:
        if self._copies is not None:
            self._copies.close()

    def settings(self, url: str, **options: Any) -> Settings:
        defaults: dict[str, Any] = {
            "database_url": url,
            "redis_url": self.redis.url(),
            "keys_dir": self.keys_dir,
            "admin_password": ADMIN_PASSWORD,
        }
        return Settings(**(defaults | options))


def _name_of(url: str) -> str:
    return url.partition("?")[0].rsplit("/", 1)[1]


@pytest.fixture(scope="session")
def databases(short_path: Path, postgres: str, keys_dir: Path, redis_server: Topology) -> Iterator[Databases]:
    folder = short_path / "sql"
    folder.mkdir()
    databases = Databases(folder, postgres, keys_dir, redis_server)
    yield databases
    databases.close()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(databases: Databases, backend: str, redis_url: str) -> Iterator[Settings]:
    """Of a database with the built-in roles, the first-party client and the admin."""
    url = databases.fresh(backend)
    yield databases.settings(url, redis_url=redis_url)
    databases.give_back(backend, url)


class Apps:
    """Makes applications on the same stores, as processes and nodes would be."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.made: list[Flask] = []

    def __call__(self, **options: Any) -> Flask:
        app = create_app(replace(self.settings, **options))
        rooms_of(app).database.engine._compiled_cache = thrift.STATEMENTS
        self.made.append(app)
        return app

    def close(self) -> None:
        for app in self.made:
            rooms_of(app).database.engine.dispose()
            rooms_of(app).store.close()


@pytest.fixture
def apps(settings: Settings) -> Iterator[Apps]:
    made = Apps(settings)
    yield made
    made.close()


@pytest.fixture
def app(apps: Apps) -> Flask:
    return apps()


@pytest.fixture
def rooms(app: Flask) -> Rooms:
    return rooms_of(app)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


class Api:
    """What tests do again and again, over HTTP."""

    def __init__(self, client: FlaskClient) -> None:
        self.http = client

    def register(self, username: str = "ann", password: str = PASSWORD) -> dict[str, Any]:
        body = {"username": username, "email": f"{username}@example.org", "password": password}
        response = self.http.post("/auth/register", json=body)
        assert response.status_code == 201, response.text
        return dict(response.json)

    def login(self, login: str = "ann", password: str = PASSWORD) -> dict[str, Any]:
        response = self.http.post("/auth/login", json={"login": login, "password": password})
        assert response.status_code == 200, response.text
        return dict(response.json)

    def signed_in(self, username: str = "ann") -> dict[str, Any]:
        self.register(username)
        return self.login(username)

    def refresh(self, token: str) -> Any:
        return self.http.post("/auth/refresh", json={"refresh_token": token})

    def me(self, access_token: str) -> Any:
        return self.http.get("/users/me", headers=bearer(access_token))

    def token(self, auth: tuple[str, str] | None = None, **form: str) -> Any:
        return self.http.post("/oauth/token", data=form, auth=auth)

    def introspect(self, auth: tuple[str, str], token: str) -> Any:
        return self.http.post("/oauth/introspect", data={"token": token}, auth=auth)

    def revoke(self, token: str, client_id: str = "first-party") -> Any:
        return self.http.post("/oauth/revoke", data={"token": token, "client_id": client_id})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def api(client: FlaskClient) -> Api:
    return Api(client)


@pytest.fixture
def api_of() -> Callable[[Flask], Api]:
    """For tests with several applications."""
    return lambda app: Api(app.test_client())


@pytest.fixture
def confidential(rooms: Rooms) -> tuple[str, str]:
    """Id and secret of a client that may use every grant and introspect."""
    row, secret = rooms.clients.create(
        client_id="backend",
        client_name="A back end",
        grant_types=["client_credentials", "password", "refresh_token"],
        scope=["openid", "posts:create", "users:read", "tokens:introspect"],
    )
    assert secret is not None
    return row.client_id, secret


class Counter:
    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Counts what is sent to Redis inside the block; a pipeline is one."""

    @contextmanager
    def counting() -> Iterator[Counter]:
        counter = Counter()

        def counted(send: Callable[..., Any]) -> Callable[..., Any]:
            def count_and_send(*args: Any, **kwargs: Any) -> Any:
                counter.count += 1
                return send(*args, **kwargs)

            return count_and_send

        with monkeypatch.context() as patch:
            for sender, name in ((AbstractConnection, "send_packed_command"), (Line, "send_and_receive")):
                patch.setattr(sender, name, counted(getattr(sender, name)))
            yield counter

    return counting


@pytest.fixture
def queries() -> Callable[[Flask], Any]:
    """Counts SQL statements of an application inside the block; BEGIN and PRAGMA too."""

    @contextmanager
    def counting(app: Flask) -> Iterator[Counter]:
        counter = Counter()
        engine = rooms_of(app).database.engine

        def count(*_args: Any) -> None:
            counter.count += 1

        sqlalchemy.event.listen(engine, "before_cursor_execute", count)
        yield counter
        sqlalchemy.event.remove(engine, "before_cursor_execute", count)

    return counting


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("stores")
    terminalreporter.write_line("SQLite, PostgreSQL and Redis: real servers, all started by this run")
    terminalreporter.write_line(
        f"Redis: {TOPOLOGY}; TOKENSERVER_TEST_REDIS={'|'.join(SHARED)} runs the suite on another topology"
    )
    scheme = EXTERNAL.partition("://")[0]
    terminalreporter.write_line(
        f"external: {scheme}, by TOKENSERVER_TEST_DATABASE_URL"
        if EXTERNAL
        else "CockroachDB: not run; TOKENSERVER_TEST_DATABASE_URL=cockroachdb://… adds it"
    )
    if MULTI_BUFFER_FAULT:
        terminalreporter.write_line(f"signatures eight at a time: not by crypto_mb, {MULTI_BUFFER_FAULT}")
    asked = os.environ.get("TOKENSERVER_TEST_VERIFIERS")
    terminalreporter.write_line(
        f"docs/validate.md: {asked} too"
        if asked
        else "docs/validate.md: Go, Java and Envoy not run; TOKENSERVER_TEST_VERIFIERS=go,java adds them"
    )
