"""The one Alembic history: it makes what the models say, on every dialect."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tokenserver.cli import program
from tokenserver.cli.command import run
from tokenserver.oauth import models as oauth  # noqa: F401 - their tables belong to the schema
from tokenserver.posts import models as posts  # noqa: F401
from tokenserver.storage import plan, revisions, schema
from tokenserver.storage.sql import Base, Database


@pytest.fixture
def database(databases, backend):
    url = databases.empty(backend).replace("postgresql://", "postgresql+psycopg2://")
    database = Database(sa.create_engine(url))
    yield database
    database.engine.dispose()


def test_upgrade_makes_what_the_models_say(database):
    assert revisions.current(database) is None
    schema.upgrade(database)
    assert revisions.current(database) == schema.head()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_second_upgrade_changes_nothing(database):
    schema.upgrade(database)
    schema.upgrade(database)
    assert revisions.current(database) == schema.head()


def test_a_wrong_model_would_be_noticed(database):
    schema.upgrade(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_feed_created_at")
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata)


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


class TestPlan:
    def test_the_sql_of_a_dialect_is_told_without_a_database(self):
        steps = plan.steps("cockroachdb", None)
        assert [step.revision for step in steps] == ["0001", "0002", "0003", "0004", "0005", "0006", "0007"]
        statements = [each for step in steps for each in step.statements]
        assert all(each.rows is None for each in statements)
        assert statements[0].sql.startswith("CREATE TABLE alembic_version")
        assert plan.steps("postgresql", schema.head()) == []

    @pytest.mark.parametrize(
        ("dialect", "sql", "table", "locks"),
        [
            ("postgresql", "ALTER TABLE t ADD COLUMN c INTEGER", "t", "ACCESS EXCLUSIVE on t, no rewrite"),
            (
                "postgresql",
                "ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 1",
                "t",
                "ACCESS EXCLUSIVE on t, no rewrite",
            ),
            ("postgresql", "ALTER TABLE t ADD COLUMN c UUID DEFAULT gen_random_uuid()", "t", "may read or rewrite"),
            ("postgresql", "ALTER TABLE t ALTER COLUMN c TYPE BIGINT", "t", "may read or rewrite"),
            ("postgresql", "CREATE INDEX i ON t (c)", "t", "SHARE on t: writes wait"),
            ("postgresql", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (c)", "t", "SHARE UPDATE EXCLUSIVE on t"),
            (
                "postgresql",
                "CREATE TABLE n (c UUID REFERENCES t (id))",
                "n",
                "SHARE ROW EXCLUSIVE on t: writes there",
            ),
            ("postgresql", 'UPDATE "t" SET c = 1', "t", "the rows that it changes"),
            ("postgresql", "DROP TABLE t", "t", "ACCESS EXCLUSIVE on t"),
            ("postgresql", "VACUUM", None, "not known"),
            ("cockroachdb", "CREATE INDEX IF NOT EXISTS i ON t (c)", "t", "an online schema change"),
            ("cockroachdb", "UPDATE t SET c = 1", "t", "the rows that it changes"),
            ("sqlite", "ALTER TABLE t ADD COLUMN c INTEGER", "t", "the whole file"),
        ],
    )
    def test_locks_are_named(self, dialect, sql, table, locks):
        described = plan._described(dialect, sql, {"t": 7}, set())
        assert described.table == table
        assert locks in described.locks
        assert described.rows == (7 if table == "t" else None)

    @pytest.mark.parametrize("dialect", plan.DIALECTS)
    def test_every_statement_of_the_history_is_understood(self, dialect):
        statements = [each for step in plan.steps(dialect, None) for each in step.statements]
        assert len(statements) > 70
        assert {each.locks for each in statements} & {plan.UNKNOWN} == set()

    def test_sizes_are_of_the_database(self, database):
        schema.upgrade(database, "0001")
        with database.engine.begin() as connection:
            for number in range(50):
                connection.execute(
                    sa.text("INSERT INTO feed VALUES (:id, 'user', 'x', 1, 1, 1)"), {"id": f"{number:032x}"}
                )
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE feed")
        if database.engine.dialect.name != "cockroachdb":  # whose estimate comes later
            assert plan._sizes(database)["feed"] == 50
        (step,) = [
            step for step in plan.steps(database.engine.dialect.name, "0001", database) if step.revision == "0002"
        ]
        rows = {each.table: each.rows for each in step.statements}
        assert "audit_events" in rows
        assert rows["posts"] is None  # a new one

    def test_the_command(self, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert run(program, ["db", "plan", "--dialect", "postgresql", "--from", "0002"]) == 0
        text = capsys.readouterr().out
        assert "-- 0003: The compared forms of names" in text
        assert "\n-- locks the rows that it changes" in text
        assert "\nUPDATE roles SET name_key = lower(name)" in text
        assert run(program, ["db", "plan", "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert (planned["dialect"], planned["from"], planned["to"]) == ("sqlite", None, schema.head())
        assert planned["steps"][0]["statements"][0].keys() == {"sql", "table", "locks", "rows"}
        assert not list(tmp_path.iterdir())  # nothing is made by looking
        assert run(program, ["db", "plan", "--dialect", "postgresql", "--from", "9"]) == 1
        assert run(program, ["db", "plan", "--from", "0001"]) == 2

    def test_what_is_planned_is_what_is_done(self, database):
        """The SQL of the plan, run by hand, is the schema that `upgrade` makes."""
        dialect = database.engine.dialect.name
        for step in plan.steps(dialect, None):
            for statement in step.statements:
                with database.engine.begin() as connection:
                    connection.exec_driver_sql(statement.sql.replace("%", "%%"))
        assert revisions.current(database) == schema.head()
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
