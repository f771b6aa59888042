"""Many rows of one table in one statement, at the price of the driver alone.

SQLAlchemy's own way of it looks at each value of each row several times, which costs as much as the database. Rows
are tuples here, in the order of the columns and of what SQLite holds: ids as 32 hex digits, times as `time_text`,
JSON as text, bytes. SQLite takes them as they are. A server takes all of them as one parameter, as JSON, and casts:
its driver would quote each value, and it would parse each, for several times as much.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson
from sqlalchemy import Column, Connection, Dialect, LargeBinary, String, Table

from tokenserver.storage.sql import Time

Rows = Sequence[tuple[Any, ...]]
MICROSECONDS: Final = 1_000_000


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """`rows`: all columns. Raises what an INSERT of SQLAlchemy's raises."""
    _run(connection, _inserting(table, connection.dialect, ""), rows)


def add_rows(connection: Connection, table: Table, number: str, rows: Rows) -> None:
    """`rows`: all columns; no two of one primary key. Where there is a row of its key, the column `number` is added
    to what stands there."""
    _run(connection, _inserting(table, connection.dialect, number), rows)


def raise_rows(connection: Connection, table: Table, names: tuple[str, ...], rows: Rows) -> None:
    """`rows`: the columns `names`, of which the first is the primary key and the second a number. Those are updated
    that stand at a lower number."""
    _run(connection, _raising(table, connection.dialect, names), rows)


def time_text(microseconds: int) -> str:
    """Since 1970. Raises ValueError, TypeError, OverflowError or OSError for what no time is."""
    seconds, fraction = divmod(microseconds, MICROSECONDS)
    return f"{_second(seconds)}.{fraction:06d}"


@lru_cache(maxsize=128)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")[:-6]


def _run(connection: Connection, statement: str, rows: Rows) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(statement, list(rows))
    else:
        connection.exec_driver_sql(statement, (orjson.dumps(rows, default=bytes.hex).decode(),))


@lru_cache(maxsize=8)
def _inserting(table: Table, dialect: Dialect, number: str) -> str:
    name_of = dialect.identifier_preparer.quote
    name, names = name_of(table.name), ", ".join(name_of(column.name) for column in table.columns)
    if dialect.name == "sqlite":
        source = f"VALUES ({', '.join('?' * len(table.columns))})"
    else:
        source = _given(list(table.columns), dialect)
    statement = f"INSERT INTO {name} ({names}) {source}"
    if not number:
        return statement
    key, number = ", ".join(name_of(column.name) for column in table.primary_key.columns), name_of(number)
    return f"{statement} ON CONFLICT ({key}) DO UPDATE SET {number} = {name}.{number} + excluded.{number}"


@lru_cache(maxsize=8)
def _raising(table: Table, dialect: Dialect, names: tuple[str, ...]) -> str:
    name_of = dialect.identifier_preparer.quote
    name, (key, number, *rest) = name_of(table.name), map(name_of, names)
    if dialect.name == "sqlite":
        places = {each: f"?{place}" for place, each in enumerate((key, number, *rest), 1)}
        source = ""
    else:
        places = {each: f"given.{each}" for each in (key, number, *rest)}
        source = f" FROM ({_given([table.columns[each] for each in names], dialect)}) AS given"
    values = ", ".join(f"{each} = {places[each]}" for each in (number, *rest))
    return (
        f"UPDATE {name} SET {values}{source}"  # noqa: S608 - the model's own names
        f" WHERE {name}.{key} = {places[key]} AND {name}.{number} < {places[number]}"
    )


def _given(columns: Sequence[Column[Any]], dialect: Dialect) -> str:
    name_of = dialect.identifier_preparer.quote
    values = ", ".join(
        f"{_value(each, place, dialect)} AS {name_of(each.name)}" for place, each in enumerate(columns)
    )
    return f"SELECT {values} FROM jsonb_array_elements(CAST(%s AS JSONB)) AS rows_given(item)"  # noqa: S608


def _value(column: Column[Any], place: int, dialect: Dialect) -> str:
    text = f"item ->> {place}"
    if isinstance(column.type, String):
        return text  # cast to VARCHAR(n) it would be cut off instead of refused
    if isinstance(column.type, LargeBinary):
        return f"decode({text}, 'hex')"
    if isinstance(column.type, Time):
        text = f"({text}) || '+00'"
    return f"CAST({text} AS {column.type.compile(dialect)})"
