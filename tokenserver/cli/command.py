"""What every command shares: it fails in one line, prints text or JSON, and works in rooms that it closes again."""

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, Invalid, StoreUnavailable, TokenserverError

if TYPE_CHECKING:
    from tokenserver.rooms import Rooms

NOT_INITIALISED: Final = "the database is not initialised: run `tokenserver init`"
STORES: Final = {
    "sql": ("the database", "TOKENSERVER_DATABASE_URL"),
    "redis": ("Redis", "TOKENSERVER_REDIS_URL"),
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

# Failing


def run(program: click.Group, arguments: Sequence[str] | None = None) -> int:
    """The exit code. Whatever goes wrong is one line on stderr, without a traceback."""
    try:
        result = copy_context().run(program.main, args=arguments, prog_name="tokenserver", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return _fail("name a command", 2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "tokenserver"
        return _fail(f"{error.format_message()} (see `{path} --help`)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except click.Abort:
        return _fail("interrupted", 130)
    except TokenserverError as error:
        return _fail(sentence(error), 1)
    except Exception as error:  # noqa: BLE001 - the last resort
        return _fail(_surprise(error), 1)
    return result if isinstance(result, int) else 0


def sentence(error: TokenserverError) -> str:
    """For operators: what the server's log would say, not what a client would hear."""
    if isinstance(error, Invalid):
        return "; ".join(f"{fault.field}: {fault.message}" for fault in error.errors)
    if isinstance(error, StoreUnavailable):
        return f"{outage(error)}: check {STORES[error.store][1]}"
    return error.private or error.public


def outage(error: StoreUnavailable) -> str:
    # `orig`: without the statement and its values. Of Redis the reason says it, also while nobody asks it.
    cause = getattr(error.__cause__, "orig", None) or error.private.partition(": ")[2]
    return f"{STORES[error.store][0]} is not available ({one_line(str(cause))})"


def _surprise(error: Exception) -> str:
    with suppress(ConfigurationError):
        if Settings.read().log_level == "debug":
            traceback.print_exception(error)
    text = one_line(str(getattr(error, "orig", error)))
    if _is_bad_database_url(error):
        return f"TOKENSERVER_DATABASE_URL: {text}"
    return f"unexpected {type(error).__name__}: {text} (TOKENSERVER_LOG_LEVEL=debug shows the traceback)"


def _is_bad_database_url(error: Exception) -> bool:
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    if isinstance(error, ArgumentError | NoSuchModuleError):
        return True
    return isinstance(error, DBAPIError) and error.statement is None  # the driver refused to connect


def _fail(text: str, code: int) -> int:
    click.echo(f"tokenserver: {one_line(text)}", err=True)
    return code


def one_line(text: str) -> str:
    return " ".join(text.split())


# Printing


def show(data: Any, *, as_json: bool, text: str) -> None:
    click.echo(json.dumps(data, indent=2, default=_plain) if as_json else text)


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """JSON has all fields, text the columns named."""
    show(rows, as_json=as_json, text=_table(rows, columns) if rows else empty)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    lines = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ((cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(_plain(value)) if value not in {None, ""} else "-"
    # What a stranger registered must not steer the terminal.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(value) if isinstance(value, UUID) else value


def log_to_stderr(settings: Settings, level: str) -> None:
    """`level`: the least that a command tells; `TOKENSERVER_LOG_LEVEL=debug` tells all."""
    from tokenserver.signals import logs

    logs.configure(settings.log_format, "DEBUG" if settings.log_level == "debug" else level)


# Working


@contextmanager
def opened(*, redis: bool = False) -> Iterator["Rooms"]:
    """The rooms of an initialised deployment. `redis`: what is changed must hold in running servers at once."""
    settings = Settings.load()
    log_to_stderr(settings, "CRITICAL")
    with furnished(settings) as rooms:
        require_schema(rooms)
        with _redis(settings) if redis else nullcontext():
            if redis:  # cutoffs are dated by this machine
                rooms.clock.compare()
                rooms.clock.require()
            yield rooms


@contextmanager
def furnished(settings: Settings) -> Iterator["Rooms"]:
    from flask import Flask

    from tokenserver.rooms import Rooms
    from tokenserver.storage.sql import unhurried
    from tokenserver.web.request_context import act_as

    act_as("cli")
    rooms = Rooms.furnish(Flask("tokenserver"), settings)
    try:
        with unhurried():
            yield rooms
    finally:
        rooms.database.engine.dispose()
        rooms.store.close()


def _redis(settings: Settings) -> Any:
    from tokenserver.storage.embedded import attach_or_start

    return attach_or_start(settings)


def make_data_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"TOKENSERVER_DATA_DIR: {settings.data_dir}: {error.strerror}") from None


def find_schema(rooms: "Rooms") -> str | None:
    """The revision of the database; nothing is made by looking."""
    from tokenserver.storage import revisions

    if rooms.settings.embedded_database and not (rooms.settings.data_dir / "tokenserver.sqlite").exists():
        return None
    return revisions.current(rooms.database)


def require_schema(rooms: "Rooms") -> None:
    """A database of this version, or of a later one: a schema only expands before the last user of it is gone."""
    from tokenserver.storage import revisions

    found, (_, needed) = find_schema(rooms), revisions.history()
    if found is None:
        raise ConfigurationError(NOT_INITIALISED)
    if found != needed and not is_later(found):
        raise ConfigurationError(
            f"the database schema is at {found} and this version needs {needed}: run `tokenserver init`"
        )


def is_later(revision: str | None) -> bool:
    """Whether a later version than this one made the schema."""
    from tokenserver.storage import revisions

    return revision is not None and revision not in revisions.history()[0]


def refuse_later(rooms: "Rooms") -> None:
    found = find_schema(rooms)
    if is_later(found):
        raise ConfigurationError(
            f"the database schema ({found}) was made by a later version: install that one to change it"
        )
