"""The history of the schema, run: by many nodes at once, over data, and under the release before."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from flask import Flask

from tests.conftest import PASSWORD
from tokenserver import first_start
from tokenserver.app import create_app, rooms_of
from tokenserver.clients.registry import FIRST_PARTY
from tokenserver.config import Settings
from tokenserver.storage import revisions, schema
from tokenserver.storage.sql import Database

NODES = 10


@pytest.fixture(params=["sqlite", "postgresql", "cockroachdb"])
def url(databases, request):
    """The third is PostgreSQL, spoken to as to CockroachDB: without locks, statement by statement."""
    if request.param == "cockroachdb":
        return databases.empty("postgresql").replace("postgresql://", "cockroachdb://")
    return databases.empty(request.param)


@pytest.fixture
def database(url):
    database = Database.of(Flask("test"), Settings(database_url=url, redis_url="unix:///nowhere"))
    yield database
    database.engine.dispose()


@pytest.fixture
def environment(url, tmp_path, redis_url):
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TOKENSERVER_")},
        "TOKENSERVER_DATABASE_URL": url,
        "TOKENSERVER_REDIS_URL": redis_url,
        "TOKENSERVER_KEYS_DIR": str(tmp_path / "keys"),
        "TOKENSERVER_SIGNING_ALG": "ES256",
    }


# Loaded once, then forked: ten interpreters would load the same for half a minute.
FORKS = """
import os, sys
import psycopg2, sqlalchemy_cockroachdb
import tokenserver.first_start, tokenserver.storage.redis_rules
from tokenserver import cli

folder, *commands = sys.argv[1:]
started = []
gate, opener = os.pipe()
for number, command in enumerate(commands):
    pid = os.fork()
    if not pid:
        os.close(opener)
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{number}.{name}", os.O_CREAT | os.O_WRONLY), descriptor)
        os.read(gate, 1)  # returns for all of them when it is closed
        sys.argv = ["tokenserver", *command.split()]
        cli.main()
    started.append(pid)
os.close(opener)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in started))
"""


def at_once(folder: Path, environment, *commands: str) -> list[str]:
    """What the processes print that all begin at the same moment."""
    folder.mkdir()
    command = [sys.executable, "-c", FORKS, str(folder), *commands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    said = "".join(path.read_text() for path in sorted(folder.glob("*.err")))
    assert done.returncode == 0, said + done.stderr
    return [path.read_text() for path in sorted(folder.glob("*.out"))]


def counts(database, *tables: str) -> dict[str, int]:
    with database.engine.connect() as connection:
        return {t: connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar_one() for t in tables}


def test_ten_nodes_begin_at_once(environment, database, tmp_path):
    """From an empty database; half of them would only upgrade, half make what `serve` makes at its first start."""
    printed = at_once(tmp_path / "nodes", environment, *["db upgrade", "init"] * (NODES // 2))
    assert revisions.current(database) == schema.head()
    assert counts(database, "alembic_version", "users", "roles", "role_assignments", "clients") == {
        "alembic_version": 1,
        "users": 1,
        "roles": 3,
        "role_assignments": 1,
        "clients": 2,
    }
    assert sum("Password:" in text for text in printed) == 1
    assert sum("first admin" in text for text in printed) == 1
    if database.engine.dialect.name != "cockroachdb":  # where all of them take part
        head = schema.head()
        upgraded = {f"upgraded from empty to {head}", f"database schema: empty to {head}"}
        assert sum(any(sentence in text for sentence in upgraded) for text in printed) == 1


# What follows runs on every backend, the reader's own too.

REVISIONS = [each.revision for each in ScriptDirectory.from_config(schema.config()).walk_revisions()][::-1]
# Revisions that take something away, once no release in use needs it; each with the reason.
CONTRACTIONS: dict[str, str] = {}


@pytest.fixture
def empty(databases, backend):
    database = Database.of(
        Flask("test"), Settings(database_url=databases.empty(backend), redis_url="unix:///nowhere")
    )
    yield database
    database.engine.dispose()


class Shape:
    """The tables as they are at a revision, hence as the release of that time knows them."""

    def __init__(self, database: Database) -> None:
        self.metadata = sa.MetaData()
        self.metadata.reflect(database.engine)
        self.tables = [table for table in self.metadata.sorted_tables if table.name != "alembic_version"]

    def add(self, connection: sa.Connection, table: sa.Table, number: int, **given: Any) -> dict[str, Any]:
        """A row that has something in every column."""
        row = {c.name: stored(c, given[c.name]) if c.name in given else made(c, number) for c in table.columns}
        connection.execute(table.insert(), row)
        return row


def stored(column: sa.Column, value: Any) -> Any:
    return value.hex if isinstance(value, UUID) and isinstance(column.type, sa.CHAR) else value


def made(column: sa.Column, number: int) -> Any:
    for key in column.foreign_keys:
        column = key.column  # the row that it refers to has the same number
    kind = column.type
    values = {
        sa.Boolean: True,
        sa.Integer: number,
        sa.DateTime: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        sa.Uuid: UUID(int=number),
        sa.CHAR: UUID(int=number).hex,  # SQLite's
        sa.LargeBinary: number.to_bytes(32, "big"),
        sa.JSON: ["x"],
        sa.String: f"{column.name}-{number}"[: getattr(kind, "length", None)],
    }
    return next(value for of, value in values.items() if isinstance(kind, of))


def test_data_of_every_release_survives_and_every_release_goes_on_writing(empty):
    """Each release fills each table; after each step all of it is still there, and every earlier release still
    writes and reads as it did (expand and contract)."""
    shapes: list[Shape] = []
    kept: dict[tuple[int, str], list[dict[str, Any]]] = {}
    number = 0
    for revision in REVISIONS:
        schema.upgrade(empty, revision)
        shapes.append(Shape(empty))
        for at, shape in enumerate(shapes):
            number += 1
            with empty.engine.begin() as connection:
                for table in shape.tables:
                    kept.setdefault((at, table.name), []).append(shape.add(connection, table, number))
    assert revisions.current(empty) == schema.head()
    for (at, name), rows in kept.items():
        table = shapes[at].metadata.tables[name]
        (key, *_) = table.primary_key.columns
        with empty.engine.connect() as connection:
            for row in rows:
                found = connection.execute(table.select().where(key == row[key.name])).mappings().one()
                assert {k: plain(v) for k, v in found.items()} == {k: plain(v) for k, v in row.items()}


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return bytes(value) if isinstance(value, memoryview) else value


def test_steps_only_expand(empty):
    shapes = []
    for revision in REVISIONS:
        schema.upgrade(empty, revision)
        shapes.append((revision, Shape(empty).metadata.tables))
    faults = []
    for (_, before), (revision, after) in pairwise(shapes):
        if revision not in CONTRACTIONS:
            faults += [f"{revision}: {fault}" for fault in contractions(before, after)]
    assert not faults


def contractions(before, after):
    """What the release before would stumble over."""
    for name, old in before.items():
        if name not in after:
            yield f"table {name} is gone"
            continue
        new = after[name]
        for column in old.columns:
            if column.name not in new.columns:
                yield f"{name}.{column.name} is gone"
            elif column.nullable and not new.columns[column.name].nullable:
                yield f"{name}.{column.name} may be NULL no more"
            elif str(column.type) != str(new.columns[column.name].type):
                yield f"{name}.{column.name} has another type"
        for column in new.columns:
            if column.name not in old.columns and not column.nullable and column.server_default is None:
                yield f"{name}.{column.name} is needed, and the release before doesn't know it"
        names = {each.name for each in old.indexes}
        for index in new.indexes:
            of_old_columns = {column.name for column in index.columns} <= set(old.columns.keys())
            if index.unique and index.name not in names and of_old_columns:
                yield f"{index.name} forbids what the release before writes"


def test_what_is_no_expansion_would_be_noticed(empty):
    schema.upgrade(empty, REVISIONS[0])
    before = Shape(empty).metadata.tables
    with empty.engine.begin() as connection:
        for statement in (
            "ALTER TABLE users DROP COLUMN name",
            "ALTER TABLE roles ADD COLUMN needed INTEGER DEFAULT 1 NOT NULL",
            "CREATE UNIQUE INDEX uq_feed_subject ON feed (subject)",
            "DROP TABLE role_permissions",
        ):
            connection.exec_driver_sql(statement)
    assert sorted(contractions(before, Shape(empty).metadata.tables)) == [
        "table role_permissions is gone",
        "uq_feed_subject forbids what the release before writes",
        "users.name is gone",
    ]


def test_people_and_families_of_the_first_release_go_on(empty, databases, redis_url):
    """Signed in and refreshed by this release, with rows that the first migration's release wrote."""
    url = empty.engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    app = create_app(databases.settings(url, redis_url=redis_url))
    rooms = rooms_of(app)
    rooms.ensure_keys()
    schema.upgrade(empty, REVISIONS[0])
    shape, now = Shape(empty), datetime.now(UTC)
    user, session, family = UUID(int=71), UUID(int=72), UUID(int=73)
    times = {"created_at": now, "updated_at": now, "authenticated_at": now, "rotated_at": now}
    live = {
        "user_id": user,
        "client_id": FIRST_PARTY,
        "amr": ["pwd"],
        "ended_at": None,
        "end_reason": None,
        **times,
    }
    live |= {"expires_at": now + timedelta(days=1)}
    rows: dict[str, dict[str, Any]] = {
        "users": {
            "id": user,
            "username": "Old",
            "username_key": "old",
            "email": "old@example.org",
            "email_key": "old@example.org",
            "password_hash": rooms.passwords.hash(PASSWORD),
            "status": "active",
        },
        "sessions": {"id": session, **live},
        "refresh_families": {
            "id": family,
            "session_id": session,
            "generation": 5,
            "idle_lifetime": 86400,
            "scope": "openid",
            "audience": [],
            "binding": None,
            **live,
        },
    }
    with empty.engine.begin() as connection:
        for name, values in rows.items():
            shape.add(connection, shape.metadata.tables[name], 1, **(times | values))
    list(first_start.prepare(rooms))
    http = app.test_client()
    signed_in = http.post("/auth/login", json={"login": "old", "password": PASSWORD})
    assert signed_in.status_code == 200, signed_in.text
    token = rooms.refresh_tokens.issue(family, 5)
    for _ in range(2):
        refreshed = http.post("/auth/refresh", json={"refresh_token": token})
        assert refreshed.status_code == 200, refreshed.text
        token = refreshed.json["refresh_token"]
    spent = rooms.refresh_tokens.issue(family, 4)
    assert http.post("/auth/refresh", json={"refresh_token": spent}).status_code == 401
    rooms.database.engine.dispose()
    rooms.store.close()
