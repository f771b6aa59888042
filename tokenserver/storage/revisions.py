"""The schema's revision, without Alembic: neither a start nor a server that runs needs more than this."""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from tokenserver.errors import ConfigurationError, StoreUnavailable
from tokenserver.storage.sql import Database

# Beside the package in a checkout; where setup.cfg puts them once installed.
FOLDERS: Final = (Path(__file__).parents[2] / "migrations", Path(sys.prefix) / "share/tokenserver/migrations")
TABLE: Final = "alembic_version"
QUERY: Final = f"SELECT version_num FROM {TABLE}"  # noqa: S608 - a constant
LINK: Final = re.compile(r'^(revision|down_revision)\b[^=\n]*= (?:"(\w+)"|None)', re.MULTILINE)


def folder() -> Path:
    """Of the migrations. Raises ConfigurationError."""
    found = next((each for each in FOLDERS if (each / "env.py").is_file()), None)
    if found is None:
        raise ConfigurationError("The migrations folder is missing; reinstall tokenserver.")
    return found


def found(database: Database) -> str | None:
    """What the database has; None where the table is empty. Raises StoreUnavailable; DBAPIError without a table."""
    revision = database.read(lambda tx: tx.connection().exec_driver_sql(QUERY).scalar_one_or_none())
    return None if revision is None else str(revision)


def current(database: Database) -> str | None:
    """What the database has; None before the first migration. Raises StoreUnavailable."""
    try:
        with database.engine.connect() as connection:
            if not inspect(connection).has_table(TABLE):
                return None
            revision = connection.exec_driver_sql(QUERY).scalar_one_or_none()
    except OperationalError as error:
        raise StoreUnavailable("sql", type(error.orig).__name__) from error
    return None if revision is None else str(revision)


@cache
def history() -> tuple[frozenset[str], str]:
    """All revisions that this version has a step for, and the newest one."""
    steps = [dict(LINK.findall(file.read_text("utf-8"))) for file in folder().glob("versions/*.py")]
    revisions = {step["revision"] for step in steps}
    (newest,) = revisions - {step["down_revision"] for step in steps}
    return frozenset(revisions), newest
