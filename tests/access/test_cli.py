"""`tokenserver role` and `tokenserver user`: an operator's way, guarded by nothing but that somebody can manage."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cli.conftest import ADMIN_PASSWORD, ALG, Deployment
from tokenserver.access.permissions import PERMISSIONS

LAST = "Nobody could manage roles any more."


@pytest.fixture(scope="module")
def cli() -> Iterator[Deployment]:
    with TemporaryDirectory(prefix="ts") as folder:
        deployment = Deployment(Path(folder), {"ADMIN_PASSWORD": ADMIN_PASSWORD, "SIGNING_ALG": ALG})
        assert deployment.run("init").code == 0
        arguments = ("--username", "ann", "--email", "ann@example.org")
        assert deployment.run("user", "create", *arguments).code == 0
        yield deployment


def recorded(cli: Deployment, event: str) -> int:
    return int(cli.sql(f"SELECT count(*) FROM audit_events WHERE event = '{event}' AND actor = 'cli'")[0][0])


def test_a_role_from_its_creation_to_its_end(cli: Deployment):
    options = ("--description", "Who pays", "--permission", "logs:read", "--permission", "posts:create")
    assert cli.run("role", "create", "premium", *options).out == "premium permits: logs:read posts:create\n"
    body = cli.run("role", "set-permissions", "premium", "users:read", "--json").data
    assert (body["name"], body["description"], body["permissions"]) == ("premium", "Who pays", ["users:read"])
    assert cli.run("user", "grant", "ann", "premium").out == "ann holds: premium user\n"
    assert cli.refused("role", "delete", "premium") == "Users hold this role."
    assert cli.run("user", "revoke", "ann", "premium").out == "ann holds: user\n"
    assert cli.run("role", "set-permissions", body["id"], "keys:read").out == "premium permits: keys:read\n"
    assert cli.run("role", "delete", body["id"]).out == "premium is deleted\n"
    assert "premium" not in [role["name"] for role in cli.run("role", "list", "--json").data]
    counts = {"role:created": 1, "role:permissions_changed": 2, "role:deleted": 1}
    assert {event: recorded(cli, event) for event in counts} == counts


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("role", "create", "a b"), "name: 1 to 64 letters, digits and . _ : -"),
        (("role", "create", "x", "--description", "x" * 256), "description: One line of at most 255"),
        (("role", "create", "Admin"), "There is a role with this name"),
        (("role", "create", "x", "--permission", "logs:x"), "permissions.0: There is no such permission."),
        (("role", "set-permissions", "user", "logs:read", "x"), "permissions.1: There is no such permission."),
        (("role", "set-permissions", "nobody", "logs:read"), "There is no such role."),
        (("role", "set-permissions", "user"), "Missing argument 'PERMISSION...'."),
        (("role", "delete", "user"), "A built-in role can't be deleted."),
        (("role", "delete", "nobody"), "There is no such role."),
        (("user", "revoke", "ann", "admin"), "ann does not hold this role."),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_refused_in_one_line(cli: Deployment, arguments: tuple[str, ...], line: str):
    assert cli.refused(*arguments).startswith(line)


def test_somebody_can_always_manage(cli: Deployment):
    rest = sorted(set(PERMISSIONS) - {"roles:write"})
    assert cli.refused("role", "set-permissions", "admin", *rest) == LAST
    assert cli.refused("user", "revoke", "admin", "admin") == LAST
    assert cli.refused("user", "disable", "admin") == LAST
    # One for assigning, one for changing roles: both are needed.
    assert cli.run("role", "create", "assigner", "--permission", "roles:assign").code == 0
    assert cli.run("user", "grant", "ann", "assigner").code == 0
    assert cli.refused("user", "revoke", "admin", "admin") == LAST
    assert cli.run("role", "set-permissions", "assigner", "roles:assign", "roles:write").code == 0
    assert cli.run("user", "revoke", "admin", "admin").code == 0
    assert cli.refused("user", "disable", "ann") == LAST
    assert cli.run("user", "grant", "admin", "admin").code == 0
    assert cli.run("user", "disable", "ann").code == 0


def test_the_way_out_when_nobody_holds_a_permission(cli: Deployment):
    """However it came about: operators hold nothing and give all."""
    cli.sql("DELETE FROM role_permissions")
    assert cli.run("role", "set-permissions", "admin", *PERMISSIONS).code == 0
    admin = next(role for role in cli.run("role", "list", "--json").data if role["name"] == "admin")
    assert admin["permissions"] == sorted(PERMISSIONS)


def test_what_changes_nothing_is_not_recorded(cli: Deployment):
    before = {
        event: recorded(cli, event) for event in ("role:assigned", "user:enabled", "role:permissions_changed")
    }
    assert cli.run("user", "grant", "admin", "admin").code == 0
    assert cli.run("user", "enable", "admin").code == 0
    assert cli.run("role", "set-permissions", "admin", *PERMISSIONS).code == 0
    assert {event: recorded(cli, event) for event in before} == before
