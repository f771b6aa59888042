"""What hundreds of applications in one process would each do anew is done once here. Nothing is left out but the
hardness of password hashes, and that not where `hard_hashes` is asked for.
"""

import gc
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg2
import pytest
import redis.utils
from argon2 import PasswordHasher
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in small letters
from sqlalchemy.orm import Mapper
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from tokenserver.identity import passwords
from tokenserver.tokens import key_files, signing_key

MEMORY: Final = Path("/dev/shm")
ENOUGH_MEMORY: Final = 1 << 30
# Of a database that was used, beyond that of a new one, until another takes its place.
MOST_GROWTH: Final = 4 << 20


def temporary_folder() -> Path:
    """With a short path, for Unix sockets; in memory, where there is enough of it."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH_MEMORY
    return Path(tempfile.mkdtemp(prefix="ts-", dir=MEMORY if in_memory else None))


def begin() -> None:
    key_files.load_pem = cache(signing_key.load_pem)
    redis.utils.get_lib_version = cache(redis.utils.get_lib_version)  # looked up for each connection
    _share_routes()
    Mapper._compiled_cache = STATEMENTS
    passwords.PasswordHasher = _light  # type: ignore[assignment,misc]


def _light(**_hardness: int) -> PasswordHasher:
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def forget_what_is_there() -> None:
    """The garbage collector does: what was imported and collected stays to the end, and to look through it again
    and again took a third of a test's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


class _Statements(LRUCache[Any, Any]):
    """Compiled for one engine, for all whose servers speak the same dialect in the same version."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_in_all(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(_in_all(key), compiled)


def _in_all(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *statement = key
    return (type(dialect), dialect.server_version_info, *statement)


STATEMENTS: Final = _Statements(5000)


@pytest.fixture
def hard_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are hashed as in a server that runs."""
    monkeypatch.setattr(passwords, "PasswordHasher", PasswordHasher)


def _share_routes() -> None:
    """A route is parsed, and compiles two functions that its `url_for` would use."""
    made: dict[Any, dict[str, Any]] = {}
    own = ("_parts", "_trace", "_converters", "arguments")
    compile_rule, compile_builder = Rule.compile, Rule._compile_builder
    builders: dict[Any, tuple[Callable[..., tuple[str, str]], ...]] = {}

    def shared(rule: Rule) -> None:
        key = (rule.rule, rule.subdomain, rule.host, rule.merge_slashes, str(rule.defaults))
        if key not in made:
            compile_rule(rule)
            made[key] = {name: vars(rule)[name] for name in own}
            builders[key] = compile_builder(rule, False), compile_builder(rule, True)
        vars(rule).update(made[key])
        rule._build, rule._build_unknown = (each.__get__(rule, None) for each in builders[key])

    Rule.compile = shared  # type: ignore[method-assign]


class PostgresCopies:
    """Copies of a database, each used by many tests: its rows are put back to what they were.

    A database gets another name when a test is over, so that no thread that a test forgot reaches the next one's.
    """

    def __init__(self, server: str, template: str) -> None:
        """`server`: the URL of a database that isn't the template. Nobody may be connected to the template."""
        self._server = server
        self._template = template
        self._connection: Connection | None = None
        self._idle: list[str] = []
        self._count = 0
        with self._connected(template) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            tables = [f'"{name}"' for (name,) in cursor.fetchall()]
            cursor.execute("CREATE SCHEMA kept;" + ";".join(f"CREATE TABLE kept.{t} AS TABLE {t}" for t in tables))
            self._restore = "SET session_replication_role = replica;" + ";".join(
                f"DELETE FROM {t}; INSERT INTO {t} SELECT * FROM kept.{t}" for t in tables
            )
            self._size, self._shape = self._look(cursor)

    def take(self) -> str:
        """The name of one that looks new."""
        if self._idle:
            return self._idle.pop()
        name = self._name()
        self._ask(f'CREATE DATABASE "{name}" TEMPLATE "{self._template}"')
        return name

    def give_back(self, name: str) -> None:
        """Its connections are cut. It is dropped when more than rows has changed."""
        new = self._name()
        try:
            self._ask("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s", (name,))
            self._ask(f'ALTER DATABASE "{name}" RENAME TO "{new}"')
        except psycopg2.errors.InvalidCatalogName:
            return  # the test dropped it
        with self._connected(new) as connection, connection.cursor() as cursor:
            size, shape = self._look(cursor)
            is_good = shape == self._shape and size - self._size < MOST_GROWTH
            if is_good:
                cursor.execute(self._restore)
        if is_good:
            self._idle.append(new)
        else:
            self._ask(f'DROP DATABASE "{new}"')

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _ask(self, statement: str, parameters: tuple[str, ...] | None = None) -> None:
        if self._connection is None:
            self._connection = psycopg2.connect(self._server)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def _connected(self, name: str) -> "_Connected":
        before, _, query = self._server.partition("?")
        return _Connected(f"{before.rsplit('/', 1)[0]}/{name}?{query}")

    def _look(self, cursor: Any) -> tuple[int, str]:
        """Bytes, and a digest of tables, columns, indexes, constraints and triggers."""
        cursor.execute(SHAPE)
        size, shape = cursor.fetchone()
        return int(size), str(shape)


class _Connected:
    """psycopg2's own `with` closes nothing."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Connection:
        self._connection = psycopg2.connect(self._url)
        return self._connection

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._connection.commit()
        self._connection.close()


SHAPE: Final = """
WITH ours AS (SELECT oid, relname, relhastriggers FROM pg_class WHERE relnamespace = 'public'::regnamespace)
SELECT pg_database_size(current_database()), md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT concat_ws(':', oid, relname, relhastriggers) FROM ours
    UNION ALL SELECT concat_ws(':', attrelid, attnum, attname, atttypid, attnotnull, atthasdef) FROM pg_attribute
        WHERE attrelid IN (SELECT oid FROM ours)
    UNION ALL SELECT concat_ws(':', oid, conname) FROM pg_constraint WHERE conrelid IN (SELECT oid FROM ours)
    UNION ALL SELECT concat_ws(':', oid, tgname) FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM ours)
) AS lines (line)
"""
