"""Alembic's entry: runs on the connection that `tokenserver db` hands over, or writes the SQL for a dialect without
one. Knows nothing of tokenserver.
"""

from typing import Any

from alembic import context
from sqlalchemy import Boolean, CheckConstraint, Column, Index, Table, UniqueConstraint, true
from sqlalchemy_cockroachdb.base import CockroachDBImpl


class ResumableImpl(CockroachDBImpl):  # type: ignore[misc]
    """CockroachDB runs each statement as a transaction of its own (ADR 0015). A step that was cut off, or that
    another node runs too, is therefore run again, and passes over what is there already.
    """

    __dialect__ = "cockroachdb"

    def version_table_impl(self, **kw: Any) -> Table:
        """With room for one row: a node that is late can't begin the history a second time."""
        table: Table = super().version_table_impl(**kw)
        table.append_column(Column("single", Boolean(), server_default=true(), nullable=False))
        table.append_constraint(UniqueConstraint("single", name="uq_alembic_version_single"))
        table.append_constraint(CheckConstraint("single", name="ck_alembic_version_single"))
        return table

    def create_table(self, table: Table, **kw: Any) -> None:
        super().create_table(table, **kw | {"if_not_exists": True})

    def drop_table(self, table: Table, **kw: Any) -> None:
        super().drop_table(table, **kw | {"if_exists": True})

    def create_index(self, index: Index, **kw: Any) -> None:
        super().create_index(index, **kw | {"if_not_exists": True})

    def drop_index(self, index: Index, **kw: Any) -> None:
        super().drop_index(index, **kw | {"if_exists": True})

    def add_column(self, table_name: str, column: "Column[Any]", **kw: Any) -> None:
        super().add_column(table_name, column, **kw | {"if_not_exists": True})

    def drop_column(self, table_name: str, column: "Column[Any]", **kw: Any) -> None:
        super().drop_column(table_name, column, **kw | {"if_exists": True})


if context.is_offline_mode():
    where: dict[str, Any] = {"dialect_name": context.config.attributes["dialect"], "literal_binds": True}
else:
    where = {"connection": context.config.attributes["connection"]}
# A transaction for each step, where the connection that was handed over isn't in one.
context.configure(target_metadata=None, transaction_per_migration=True, **where)
with context.begin_transaction():
    context.run_migrations()
