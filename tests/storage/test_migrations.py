"""The history of the schema, run: by many nodes at once, over data, and under the release before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from tokenserver.config import Settings
from tokenserver.storage import schema
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
    assert schema.current(database) == schema.head()
    assert counts(database, "alembic_version", "server_state", "users", "roles", "role_assignments", "clients") == {
        "alembic_version": 1,
        "server_state": 1,
        "users": 1,
        "roles": 3,
        "role_assignments": 1,
        "clients": 1,
    }
    assert sum("Password:" in text for text in printed) == 1
    assert sum("first admin" in text for text in printed) == 1
    if database.engine.dialect.name != "cockroachdb":  # where all of them take part
        head = schema.head()
        upgraded = {f"upgraded from empty to {head}", f"database schema: empty to {head}"}
        assert sum(any(sentence in text for sentence in upgraded) for text in printed) == 1
