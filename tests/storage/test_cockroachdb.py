"""What can be said of CockroachDB without one: its rules, held against the SQL that its dialect makes of ours.

The dialect speaks to a PostgreSQL here, which understands the same statements. It proves that they are well formed
and that our code does its work through this dialect, and nothing about how CockroachDB behaves. For that there is
TOKENSERVER_TEST_DATABASE_URL=cockroachdb://…
"""

import re

import psycopg2
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy_cockroachdb.psycopg2 import CockroachDBDialect_psycopg2

from tests.conftest import ADMIN_PASSWORD, bearer
from tokenserver import first_start
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.background import Background
from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.oauth import models as oauth  # noqa: F401 - their tables belong to the schema
from tokenserver.posts import models as posts  # noqa: F401
from tokenserver.storage import plan, revisions, schema
from tokenserver.storage.sql import Base, Database

# Nowhere in our SQL: a pattern, and why not.
NOWHERE = {
    r"\b(?:BIG|SMALL)?SERIAL\b": "makes keys in order, hence one hot range, or unique_rowid() of 64 bits",
    r"\bIDENTITY\b|\bSEQUENCE\b|\bnextval\b": "a sequence is a row that all nodes write",
    r"\bpg_(?:try_)?advisory": "advisory locks are no-ops",
    r"\bLOCK TABLE\b": "there is none",
    r"\bLISTEN\b|\bNOTIFY\b": "there is none",
    r"\bCONCURRENTLY\b": "every schema change is online; the word only hides that it runs in no transaction",
    r"\bDEFERRABLE\b|\bDEFERRED\b": "constraints are checked at once",
    r"\bEXCLUDE\b|\bINHERITS\b|\bTABLESPACE\b|\bUNLOGGED\b|\bCREATE DOMAIN\b": "there is none",
    r"\bCREATE EXTENSION\b|\bCITEXT\b|\bHSTORE\b|\bXML\b|\bMONEY\b": "there are no extensions, nor these types",
    r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|TRIGGER|RULE)\b": "of late versions only, and not as in PostgreSQL",
    r"\bALTER COLUMN \w+ (?:SET DATA )?TYPE\b": "rewrites in the background, by a setting only, in no transaction",
    r"\bDROP CONSTRAINT\b": "a unique constraint is dropped as an index",
    r"\bctid\b|\bxmin\b|\bregclass\b|\bpg_class\b": "PostgreSQL's insides",
    r"\bISOLATION LEVEL\b": "it is SERIALIZABLE, and stays so",
}
DATA = re.compile(r"(INSERT|UPDATE|DELETE)\b")


def history():
    return plan.steps("cockroachdb", None)


@pytest.mark.parametrize("pattern", NOWHERE)
def test_the_schema_has_nothing_that_it_lacks(pattern):
    statements = [each.sql for step in history() for each in step.statements]
    models = [str(sa.schema.CreateTable(t).compile(dialect=CockroachDBDialect_psycopg2())) for t in tables()]
    assert not [sql for sql in statements + models if re.search(pattern, sql, re.IGNORECASE)], NOWHERE[pattern]


def tables():
    return Base.metadata.sorted_tables


def test_every_table_has_a_key_of_its_own_and_no_number_counts_up():
    """Without one, CockroachDB makes a hidden key in order. Numbers in keys are given by us, and few."""
    numbers = set()
    for table in tables():
        assert table.primary_key.columns, table.name
        for column in table.primary_key.columns:
            assert column.server_default is None
            if isinstance(column.type, sa.Integer):
                assert column.autoincrement is False
                numbers.add(f"{table.name}.{column.name}")
            if column.name == "id" and isinstance(column.type, sa.Uuid) and column.default is not None:
                made = {column.default.arg(None) for _ in range(3)}
                assert {value.version for value in made} == {4}  # random: writes spread over all ranges
    assert numbers == {
        "server_state.id",
        "audit_checkpoints.number",
        "usage_counts.seconds",
        "usage_counts.bucket",
    }


def test_no_index_is_on_json():
    """JSON is JSONB there, which a plain index can't hold."""
    for table in tables():
        for index in table.indexes:
            assert not [column for column in index.columns if isinstance(column.type, sa.JSON)]


def test_no_step_mixes_ddl_and_data():
    """Data can't use a column that is still being made."""
    for step in history():
        statements = [s.sql for s in step.statements if s.table != "alembic_version"]
        data = [sql for sql in statements if DATA.match(sql)]
        assert not data or data == statements, step.revision


def test_every_statement_of_a_step_may_run_again():
    """Each is a transaction of its own: a step that was cut off begins again, and two nodes may run one at once."""
    for step in history():
        for statement in step.statements:
            if statement.table == "alembic_version":
                continue
            if DATA.match(statement.sql):
                assert "IS NULL" in statement.sql  # changes only what isn't changed yet
            else:
                assert re.search(r"\bIF (?:NOT )?EXISTS\b", statement.sql), statement.sql


@pytest.fixture
def database(databases):
    url = databases.empty("postgresql").replace("postgresql://", "cockroachdb://")
    database = Database.of(Flask("test"), Settings(database_url=url, redis_url="unix:///nowhere"))
    assert database.engine.dialect.name == "cockroachdb"
    yield database
    database.engine.dispose()


def test_a_step_that_was_cut_off_anywhere_is_taken_up_again(database):
    """Stopped after every tenth statement, with the version not yet written."""
    for step in history():
        schema.upgrade(database, f"{int(step.revision) - 1:04}") if step.revision != "0001" else None
        made = [s.sql for s in step.statements if s.table != "alembic_version"]
        for end in range(0, len(made), 10):
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for sql in made[:end]:
                    connection.exec_driver_sql(sql)
        schema.upgrade(database, step.revision)
        assert revisions.current(database) == step.revision
    assert revisions.current(database) == schema.head()


def test_the_history_can_not_begin_twice(database):
    """A node that is late finds that another one was faster, whatever that one has done meanwhile."""
    schema.upgrade(database)
    with database.engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.exec_driver_sql("INSERT INTO alembic_version (version_num) VALUES ('0001')")


class TestServer:
    @pytest.fixture
    def settings(self, databases, redis_url):
        url = databases.empty("postgresql").replace("postgresql://", "cockroachdb://")
        return databases.settings(url, redis_url=redis_url)

    @pytest.fixture
    def said(self, app):
        """Every statement that goes to the database."""
        statements = []
        sa.event.listen(
            rooms_of(app).database.engine, "before_cursor_execute", lambda *args: statements.append(args[2])
        )
        return statements

    def test_a_typical_day(self, app, said, api):
        rooms = rooms_of(app)
        list(first_start.prepare(rooms))
        said.clear()
        pool = rooms.database.engine.pool
        tokens = api.signed_in()
        admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
        me = bearer(tokens["access_token"])
        http = api.http
        refreshed = api.refresh(tokens["refresh_token"]).json
        post = http.post("/posts", json={"title": "a", "body": "b"}, headers=me).json
        user = http.get("/users/me", headers=me).json
        role = {"name": "premium", "permissions": ["posts:create"]}
        answers = [
            http.get("/posts", headers=me),
            http.get("/users", headers=admin),
            http.post("/roles", json=role, headers=admin),
            http.put(f"/users/{user['id']}/roles", json={"roles": ["user", "premium"]}, headers=admin),
            http.put("/users/me", json={"name": "Ann"}, headers=me),
            http.delete(f"/posts/{post['id']}", headers=me),
            http.get("/admin/logs", headers=admin),
            http.get("/admin/stats", headers=admin),
            http.get("/users/me/sessions", headers=me),
            http.post("/auth/logout", headers=bearer(refreshed["access_token"])),
        ]
        assert {answer.status_code // 100 for answer in answers} == {2}
        # No lock is held across requests: between them no connection is in anybody's hands.
        assert pool.checkedout() == 0
        background = Background(rooms)
        for chore in (
            background._drain,
            background._reconcile,
            background._seal,
            background._purge,
            background._forget,
        ):
            chore()
        assert pool.checkedout() == 0
        assert len(said) > 50
        assert [sql for sql in said if "FOR UPDATE" in sql]
        for pattern, reason in NOWHERE.items():
            assert not [sql for sql in said if re.search(pattern, sql, re.IGNORECASE)], reason
        locking = [sql for sql in said if re.search(r"FOR (?:UPDATE|SHARE)", sql)]
        # Rows are locked, not what was made of them.
        assert not [sql for sql in locking if re.search(r"\bDISTINCT\b|\bGROUP BY\b|\bUNION\b|count\(", sql)]

    def test_rows_that_come_by_the_thousand_spread(self, app, api):
        """In the order of time all of them would be written on one machine."""
        rooms = rooms_of(app)
        list(first_start.prepare(rooms))
        api.signed_in()
        rooms.trail.drain_all()
        ids = rooms.database.read(lambda tx: tx.scalars(sa.select(AuditEvent.id)).all())
        assert {each.version for each in ids} == {4}


def test_certificates_reach_the_driver_as_they_are_written(monkeypatch):
    query = "sslmode=verify-full&sslrootcert=/c/ca.crt&sslcert=/c/client.app.crt&sslkey=/c/client.app.key"
    url = f"cockroachdb://app@db.example:26257/tokens?{query}&options=--cluster%3Dx"
    database = Database.of(Flask("tls"), Settings(database_url=url, redis_url="unix:///nowhere"))
    told = {}

    def connect(**arguments):
        told.update(arguments)
        raise psycopg2.OperationalError("not here")

    monkeypatch.setattr(psycopg2, "connect", connect)
    with pytest.raises(StoreUnavailable):
        database.read(lambda tx: tx.connection())
    expected = dict(pair.split("=") for pair in query.split("&"))
    assert {name: told[name] for name in expected} == expected
    assert (told["host"], told["port"], told["user"], told["dbname"]) == ("db.example", 26257, "app", "tokens")
    assert told["options"].endswith(" --cluster=x")
    assert "-c statement_timeout=8s" in told["options"]
