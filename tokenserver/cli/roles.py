"""`tokenserver role`: what can be granted."""

from typing import TYPE_CHECKING, Any

import click

from tokenserver.cli.command import json_option, opened, show_table

if TYPE_CHECKING:
    from tokenserver.storage.sql import Transaction


@click.group()
def role() -> None:
    """Roles: names for sets of permissions."""


@role.command("list")
@json_option
def list_roles(as_json: bool) -> None:
    """List the roles, what each permits, and how many users hold it."""
    with opened() as rooms:
        rows = rooms.database.read(_read)
    columns = ("name", "user_count", "builtin", "permissions")
    show_table(rows, columns, as_json=as_json, empty="no roles")


def _read(tx: "Transaction") -> list[dict[str, Any]]:
    from sqlalchemy import func, select

    from tokenserver.access.models import Role, RoleAssignment

    held = select(RoleAssignment.role_id, func.count()).group_by(RoleAssignment.role_id)
    users = dict(tx.execute(held).tuples().all())
    return [
        {
            "id": row.id,
            "name": row.name,
            "description": row.description,
            "permissions": sorted(each.permission for each in row.permissions),
            "builtin": row.builtin,
            "user_count": users.get(row.id, 0),
        }
        for row in tx.scalars(select(Role).order_by(Role.name))
    ]
