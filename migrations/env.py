"""Alembic's entry: runs on the connection that `tokenserver db` hands over. Knows nothing of tokenserver."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=None,
    # One transaction for each step: CockroachDB wants DDL apart from what uses it.
    transaction_per_migration=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
