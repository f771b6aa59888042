"""Many rows of one table in one statement, at the price of the driver alone.

SQLAlchemy's own way of it looks at each value of each row several times, which costs as much as the database.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Dialect, Table

PAGE: Final = 500  # rows of a statement where the driver would send one statement for each row


class _Form(NamedTuple):
    head: str
    row: str
    converters: tuple[tuple[str, Callable[[Any], Any] | None], ...]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows`: all columns by their names. Raises what an INSERT of SQLAlchemy's raises."""
    dialect = connection.dialect
    form = _form(table, dialect)
    values = [
        tuple(row[name] if convert is None else convert(row[name]) for name, convert in form.converters)
        for row in rows
    ]
    if dialect.name == "sqlite":
        connection.exec_driver_sql(form.head + form.row, values)
        return
    for start in range(0, len(values), PAGE):
        page = values[start : start + PAGE]
        statement = form.head + ",".join([form.row] * len(page))
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(page)))


@lru_cache(maxsize=8)
def _form(table: Table, dialect: Dialect) -> _Form:
    names = dialect.identifier_preparer
    columns = ", ".join(map(names.format_column, table.columns))
    head = f"INSERT INTO {names.format_table(table)} ({columns}) VALUES "  # noqa: S608 - the model's own names
    place = "?" if dialect.paramstyle == "qmark" else "%s"
    converters = tuple((c.name, c.type.dialect_impl(dialect).bind_processor(dialect)) for c in table.columns)
    return _Form(head, f"({', '.join([place] * len(converters))})", converters)
