"""What the missing steps of the schema would do: their SQL, what each statement locks, how large its table is."""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from tokenserver.storage import schema
from tokenserver.storage.sql import Database

DIALECTS: Final = ("sqlite", "postgresql", "cockroachdb")

NAME: Final = r'"?(?P<table>\w+)"?'
# A new column with this looks at every row.
COSTLY: Final = r".*\b(?:REFERENCES|GENERATED|UNIQUE|CHECK\b|DEFAULT \w+\()"
# The first that fits says what kind of statement it is.
KINDS: Final = {
    "create table": rf"CREATE TABLE (?:IF NOT EXISTS )?{NAME}",
    "create index": rf"CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?\S+ ON {NAME}",
    "create index concurrently": rf"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?:IF NOT EXISTS )?\S+ ON {NAME}",
    "add column": rf"ALTER TABLE (?:IF EXISTS )?{NAME} ADD COLUMN (?!{COSTLY})",
    "alter table": rf"ALTER TABLE (?:IF EXISTS )?{NAME}",
    "drop table": rf"DROP TABLE (?:IF EXISTS )?{NAME}",
    "drop index": rf"DROP INDEX (?:IF EXISTS )?{NAME}",
    "insert": rf"INSERT INTO {NAME}",
    "update": rf"UPDATE {NAME}",
    "delete": rf"DELETE FROM {NAME}",  # noqa: S608 - a pattern
}
NEW: Final = "a new table: nobody waits"
ROWS: Final = "the rows that it changes: other writes of these rows wait until the step is committed"
WHOLE_FILE: Final = "the whole file: other writes wait until all steps are committed, reads go on"
ONLINE: Final = "nothing: an online schema change in the background, reads and writes go on"
LOCKS: Final[dict[str, dict[str, str]]] = {
    "sqlite": dict.fromkeys(KINDS, WHOLE_FILE),
    "postgresql": {
        "create index": "SHARE on {table}: writes wait while the index is built and until the step is committed, "
        "reads go on",
        "create index concurrently": "SHARE UPDATE EXCLUSIVE on {table}: reads and writes go on",
        "add column": "ACCESS EXCLUSIVE on {table}, no rewrite: reads and writes wait until the step is committed",
        "alter table": "ACCESS EXCLUSIVE on {table}: reads and writes wait until the step is committed; it may "
        "read or rewrite the whole table",
        "drop table": "ACCESS EXCLUSIVE on {table}: reads and writes wait until the step is committed",
        "drop index": "ACCESS EXCLUSIVE on the table of {table}: reads and writes wait until the step is committed",
        **dict.fromkeys(("insert", "update", "delete"), ROWS),
    },
    "cockroachdb": {
        **dict.fromkeys(("create index", "add column", "drop table", "drop index"), ONLINE),
        "alter table": "an online schema change, which may validate or rewrite the whole table in the background",
        "insert": ROWS,
        **dict.fromkeys(("update", "delete"), ROWS + "; a transaction of its own, tried again by conflicts"),
    },
}
UNKNOWN: Final = "not known: read the statement"


class Statement(NamedTuple):
    """`locks`: a sentence. `rows`: of the table, about; None where nobody knows or the table is new."""

    sql: str
    table: str | None
    locks: str
    rows: int | None


class Step(NamedTuple):
    revision: str
    what: str
    statements: list[Statement]


def steps(dialect: str, found: str | None, database: Database | None = None) -> list[Step]:
    """Those after the revision `found`. `database`: where to ask for the sizes of tables."""
    configuration = schema.config()
    docs = {each.revision: each.doc for each in ScriptDirectory.from_config(configuration).walk_revisions()}
    written = _Written()
    configuration.output_buffer = written
    configuration.attributes["dialect"] = dialect
    command.upgrade(configuration, f"{found}:head" if found else "head", sql=True)
    sizes = _sizes(database) if database else {}
    new: set[str] = set()
    done = []
    for revision, statements in written.steps():
        described = [_described(dialect, sql, sizes, new) for sql in statements]
        done.append(Step(revision, docs[revision], described))
    return done


class _Written(io.StringIO):
    """What Alembic writes, one statement at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []

    def write(self, written: str) -> int:
        self._texts.append(re.sub(r" +\n", "\n", written.strip()))
        return len(written)

    def steps(self) -> Iterator[tuple[str, list[str]]]:
        """Revisions, each with its statements. The table of versions is made before the first one is named."""
        statements: list[str] = []
        revision = ""
        for written in self._texts:
            if written in {"BEGIN;", "COMMIT;"}:
                continue
            if begin := re.match(r"-- Running \w* ?.*-> (\w+)", written):
                if revision:
                    yield revision, statements
                    statements = []
                revision = begin[1]
            else:
                statements.append(written)
        if revision:
            yield revision, statements


def _described(dialect: str, sql: str, sizes: dict[str, int], new: set[str]) -> Statement:
    found = ((kind, re.match(pattern, sql, re.DOTALL)) for kind, pattern in KINDS.items())
    kind, match = next(((kind, match) for kind, match in found if match), ("", None))
    if match is None:
        return Statement(sql, None, UNKNOWN, None)
    table = match["table"]
    if kind == "create table":
        new.add(table)
    locks = NEW if table in new and dialect != "sqlite" else LOCKS[dialect][kind].format(table=table)
    referred = sorted(set(re.findall(r"REFERENCES (\w+)", sql)) - new)
    if referred and dialect == "postgresql":
        locks += f"; SHARE ROW EXCLUSIVE on {', '.join(referred)}: writes there wait until the step is committed"
    return Statement(sql, table, locks, None if table in new else sizes.get(table))


def _sizes(database: Database) -> dict[str, int]:
    """Rows of each table: counted on SQLite, estimated by the server elsewhere."""
    queries = {
        "sqlite": "SELECT name, 0 FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT relname, reltuples FROM pg_class WHERE relkind IN ('r', 'p') AND "
        "relnamespace = current_schema()::regnamespace AND reltuples >= 0",
        "cockroachdb": "SELECT table_name, estimated_row_count FROM [SHOW TABLES] "
        "WHERE estimated_row_count IS NOT NULL",
    }
    dialect = database.engine.dialect.name
    with database.engine.connect() as connection:
        sizes: dict[str, Any] = {}
        with suppress(DBAPIError):  # an estimate that can't be had is no reason not to plan
            sizes = {name: int(rows) for name, rows in connection.execute(text(queries[dialect]))}
        return {name: _count(connection, name) for name in sizes} if dialect == "sqlite" else sizes


def _count(connection: Connection, table: str) -> int:
    return int(connection.exec_driver_sql(f'SELECT count(*) FROM "{table}"').scalar_one())  # noqa: S608 - its own name
