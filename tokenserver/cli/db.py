"""`tokenserver db`: the schema of the database."""

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


@click.group()
def db() -> None:
    """The schema of the database."""


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Bring the schema to what this version needs.

    Servers of the previous version may go on running meanwhile, and any number of nodes may do this at once.
    """
    from tokenserver.storage import schema

    settings = Settings.load()
    log_to_stderr(settings, "ERROR")
    if settings.embedded_database:
        make_data_folder(settings)
    with furnished(settings) as rooms:
        refuse_later(rooms)
        before = schema.current(rooms.database)
        if before != schema.head():
            before = schema.upgrade(rooms.database)
        after = schema.current(rooms.database)
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
