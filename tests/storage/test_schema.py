"""The one Alembic history: it makes what the models say, on every dialect."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy_cockroachdb.psycopg2 import CockroachDBDialect_psycopg2

from tokenserver.oauth import models as oauth  # noqa: F401 - their tables belong to the schema
from tokenserver.posts import models as posts  # noqa: F401
from tokenserver.storage import schema
from tokenserver.storage.sql import Base, Database


@pytest.fixture
def database(databases, backend):
    url = databases.empty(backend).replace("postgresql://", "postgresql+psycopg2://")
    database = Database(sa.create_engine(url))
    yield database
    database.engine.dispose()


def test_upgrade_makes_what_the_models_say(database):
    assert schema.current(database) is None
    schema.upgrade(database)
    assert schema.current(database) == schema.head()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_second_upgrade_changes_nothing(database):
    schema.upgrade(database)
    schema.upgrade(database)
    assert schema.current(database) == schema.head()


def test_a_wrong_model_would_be_noticed(database):
    schema.upgrade(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_feed_created_at")
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata)


def test_cockroachdb_ddl_keeps_the_rules():
    """design: random UUID keys, no sequences, no serial columns; compiled here because no server can be had."""
    for table in Base.metadata.sorted_tables:
        ddl = str(sa.schema.CreateTable(table).compile(dialect=CockroachDBDialect_psycopg2()))
        assert "SERIAL" not in ddl.upper()
        assert "SEQUENCE" not in ddl.upper()
        assert "PRIMARY KEY" in ddl
        keys = [column for column in table.primary_key.columns if isinstance(column.type, sa.Integer)]
        assert all(column.autoincrement is False for column in keys)


def test_migrations_hold_no_data_beside_ddl_and_do_not_import_the_product():
    """A step of DDL and DML together fails on CockroachDB; one that imports models freezes them for ever."""
    config = schema.config()
    folder = config.get_main_option("script_location")
    for path in Path(folder).rglob("*.py"):
        text = path.read_text()
        assert "tokenserver" not in text.replace("`tokenserver db`", "").replace("of tokenserver", "")
        assert not ("op.execute" in text and "create_table" in text)


def test_the_ids_of_revisions_form_one_line():
    script = command.ScriptDirectory.from_config(schema.config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
