"""`tokenserver role`: what can be granted. Operators are not guarded by what they hold, as admins are."""

from typing import TYPE_CHECKING, Any, Final

import click

from tokenserver.cli.command import json_option, opened, show, show_table

if TYPE_CHECKING:
    from tokenserver.storage.feed import Change
    from tokenserver.storage.sql import Transaction

COLUMNS: Final = ("name", "user_count", "builtin", "permissions")


@click.group()
def role() -> None:
    """Roles: names for sets of permissions. ROLE is a name or an id."""


@role.command("list")
@json_option
def list_roles(as_json: bool) -> None:
    """List the roles, what each permits, and how many users hold it."""
    with opened() as rooms:
        from tokenserver.access import roles

        rows = rooms.database.read(lambda tx: roles.bodies(tx, roles.page(tx)))
    show_table(rows, COLUMNS, as_json=as_json, empty="no roles")


@role.command()
@click.argument("name")
@click.option("--description", default="", help="What it is for, in one line.")
@click.option("--permission", "permissions", multiple=True, help="What it permits; give the option once for each.")
@json_option
def create(name: str, description: str, permissions: tuple[str, ...], as_json: bool) -> None:
    """Make a role, which nobody holds yet."""
    with opened(redis=True) as rooms:
        from tokenserver.access import guards, roles

        def make(tx: "Transaction", _change: "Change") -> dict[str, Any]:
            guards.lock(tx)
            row = roles.create(tx, name=name, description=description, permissions=permissions, own=None)
            return roles.body(tx, row)

        body = rooms.feed.change(make)
    show(body, as_json=as_json, text=_permits(body))


@role.command("set-permissions")
@click.argument("name", metavar="ROLE")
@click.argument("permissions", metavar="PERMISSION...", nargs=-1, required=True)
@json_option
def set_permissions(name: str, permissions: tuple[str, ...], as_json: bool) -> None:
    """Let a role permit these and nothing else; it holds from the next request on."""
    with opened(redis=True) as rooms:
        from tokenserver.access import guards, roles

        def replace(tx: "Transaction", change: "Change") -> dict[str, Any]:
            guards.lock(tx)
            row = roles.get(tx, name)
            roles.set_permissions(tx, change, row, permissions, own=None)
            return roles.body(tx, row)

        body = rooms.feed.change(replace)
    show(body, as_json=as_json, text=_permits(body))


@role.command()
@click.argument("name", metavar="ROLE")
@json_option
def delete(name: str, as_json: bool) -> None:
    """Delete a role that nobody holds."""
    with opened(redis=True) as rooms:
        from tokenserver.access import guards, roles

        def remove(tx: "Transaction", _change: "Change") -> str:
            guards.lock(tx)
            row = roles.get(tx, name)
            roles.remove(tx, row, own=None)
            return row.name

        deleted = rooms.feed.change(remove)
    show({"name": deleted, "deleted": True}, as_json=as_json, text=f"{deleted} is deleted")


def _permits(body: dict[str, Any]) -> str:
    return f"{body['name']} permits: {' '.join(body['permissions']) or 'nothing'}"
