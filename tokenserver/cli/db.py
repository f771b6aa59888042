"""`tokenserver db`: the schema of the database."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenserver.cli.command import (
    find_schema,
    furnished,
    json_option,
    log_to_stderr,
    make_data_folder,
    refuse_later,
    show,
)
from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, TokenserverError

if TYPE_CHECKING:
    from tokenserver.storage.plan import Step


@click.group()
def db() -> None:
    """The schema of the database."""


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Bring the schema to what this version needs.

    Servers of the previous version may go on running meanwhile, and any number of nodes may do this at once.
    """
    from tokenserver.storage import revisions, schema

    settings = Settings.load()
    log_to_stderr(settings, "ERROR")
    if settings.embedded_database:
        make_data_folder(settings)
    with furnished(settings) as rooms:
        refuse_later(rooms)
        before = revisions.current(rooms.database)
        if before != schema.head():
            before = schema.upgrade(rooms.database)
        after = revisions.current(rooms.database)
    text = (
        f"the schema is current ({after})" if before == after else f"upgraded from {before or 'empty'} to {after}"
    )
    show({"before": before, "after": after}, as_json=as_json, text=text)


@db.command()
@json_option
def current(as_json: bool) -> None:
    """Show the schema's revision, and the one needed."""
    from tokenserver.storage import schema

    settings = Settings.load()
    log_to_stderr(settings, "ERROR")
    with furnished(settings) as rooms:
        found, needed = find_schema(rooms), schema.head()
    pending = "" if found == needed else f"; this version needs {needed}: run `tokenserver db upgrade`"
    show(
        {"current": found, "head": needed, "is_current": found == needed},
        as_json=as_json,
        text=f"{found or 'empty'}{pending}",
    )


@db.command()
@click.option(
    "--dialect",
    type=click.Choice(["sqlite", "postgresql", "cockroachdb"]),
    help="The SQL of this one, without asking a database.",
)
@click.option("--from", "start", metavar="REVISION", help="With --dialect: the revision to begin at, or empty.")
@json_option
def plan(dialect: str | None, start: str | None, as_json: bool) -> None:
    """Show what `upgrade` would do, and change nothing.

    That is the SQL of the missing steps, what each statement locks, and about how many rows its table has.
    """
    from tokenserver.storage import plan as plans
    from tokenserver.storage import schema

    if start and not dialect:
        raise click.UsageError("--from needs --dialect")
    settings = Settings.load()
    log_to_stderr(settings, "ERROR")
    if dialect:
        found = start
        if found and not schema.is_known(found):
            raise ConfigurationError(f"there is no revision {found}")
        steps = plans.steps(dialect, found)
    else:
        with furnished(settings) as rooms:
            refuse_later(rooms)
            found, dialect = find_schema(rooms), rooms.database.engine.dialect.name
            steps = plans.steps(dialect, found, rooms.database if found else None)
    data = {
        "dialect": dialect,
        "from": found,
        "to": schema.head(),
        "steps": [step._asdict() | {"statements": [each._asdict() for each in step.statements]} for step in steps],
    }
    show(data, as_json=as_json, text="\n".join(_script(dialect, found, steps)))


def _script(dialect: str, found: str | None, steps: "list[Step]") -> Iterator[str]:
    """SQL that can be run as it is, with comments."""
    if not steps:
        yield f"-- nothing to do: the schema is at {found}"
    for step in steps:
        whole = {"sqlite": "in one transaction with the others", "postgresql": "one transaction"}
        yield f"-- {step.revision}: {step.what} ({whole.get(dialect, 'each statement by itself')})"
        for each in step.statements:
            size = "" if each.rows is None else f" (about {each.rows:,} rows)"
            yield f"\n-- locks {each.locks}{size}\n{each.sql}"
        yield ""


@db.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Copy a SQLite database to FILE, which must not exist, as it is at this moment.

    A server may run on it meanwhile. PostgreSQL and CockroachDB have tools of their own: see docs/backup.md.
    """
    settings = Settings.load()
    scheme, _, path = settings.sqlalchemy_url.partition(":///")
    if scheme != "sqlite":
        raise ConfigurationError("this database is backed up by its own tools: docs/backup.md says how")
    if not Path(path).is_file():
        raise ConfigurationError("there is no database yet: run `tokenserver init`")
    try:
        size = _copy_sqlite(Path(path), file)
    except FileExistsError:
        raise TokenserverError(private=f"{file} is there already") from None
    except (OSError, sqlite3.Error) as error:
        raise TokenserverError(private=f"{file}: {getattr(error, 'strerror', None) or error}") from None
    show({"file": str(file), "bytes": size}, as_json=as_json, text=f"{size} bytes in {file}")


def _copy_sqlite(source: Path, file: Path) -> int:
    """Whole or not at all, readable for this user alone; its size."""
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    if file.exists():
        raise FileExistsError
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(source, timeout=10)) as connection:
            connection.execute("VACUUM INTO ?", (str(partial),))
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        os.link(partial, file)  # unlike a rename, never over another one
    finally:
        partial.unlink(missing_ok=True)
    return file.stat().st_size
