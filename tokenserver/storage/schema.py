"""The schema's version: one Alembic history, in `migrations/`, for every backend."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tokenserver.errors import ConfigurationError, StoreUnavailable
from tokenserver.storage.sql import Database

T = TypeVar("T")

# Beside the package in a checkout; where setup.cfg puts them once installed.
FOLDERS: Final = (Path(__file__).parents[2] / "migrations", Path(sys.prefix) / "share/tokenserver/migrations")


def current(database: Database) -> str | None:
    """The revision that the database has; None before the first migration. Raises StoreUnavailable."""
    return _connected(database, lambda c: MigrationContext.configure(c).get_current_revision())


def head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(database: Database) -> None:
    """To the head. Raises StoreUnavailable."""

    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()

    _connected(database, run)


def _connected(database: Database, work: Callable[[Connection], T]) -> T:
    try:
        with database.engine.connect() as connection:
            return work(connection)
    except OperationalError as error:
        raise StoreUnavailable("sql", type(error.orig).__name__) from error


def _config() -> Config:
    folder = next((f for f in FOLDERS if (f / "env.py").is_file()), None)
    if folder is None:
        raise ConfigurationError("The migrations folder is missing; reinstall tokenserver.")
    config = Config()
    config.set_main_option("script_location", str(folder))
    return config
