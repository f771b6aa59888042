"""`tokenserver user`: the people, and the roles that they hold."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from uuid import UUID

import click

from tokenserver.cli.command import json_option, opened, show, show_table
from tokenserver.errors import Conflict, NotFound

if TYPE_CHECKING:
    from tokenserver.identity.models import User
    from tokenserver.rooms import Rooms
    from tokenserver.storage.feed import Change
    from tokenserver.storage.sql import Transaction

F = TypeVar("F", bound=Callable[..., Any])
COLUMNS = ("username", "email", "status", "roles", "id")


@click.group()
def user() -> None:
    """People. USER is a user name, an e-mail address or an id."""


def password_options(command: F) -> F:
    stdin = click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
    prompt = click.option("--password-prompt", is_flag=True, help="Ask for the password on the terminal.")
    return stdin(prompt(command))


@user.command()
@click.option("--username", required=True, help="2 to 32 of a-z, 0-9, '.', '_' and '-'.")
@click.option("--email", required=True, help="The e-mail address, which also signs in.")
@click.option("--name", help="The full name, for display.")
@click.option("--email-verified", is_flag=True, help="The e-mail address is known to be theirs.")
@click.option("--claims", type=click.File("rb"), help="A JSON object of OpenID Connect's standard claims.")
@click.option(
    "--password", help="The password; other users of this machine may see it, so prefer --password-stdin."
)
@password_options
@json_option
def create(
    username: str,
    email: str,
    name: str | None,
    email_verified: bool,
    claims: BinaryIO | None,
    password: str | None,
    password_stdin: bool,
    password_prompt: bool,
    as_json: bool,
) -> None:
    """Create a user with the role `user`; without a password, generate one and print it once."""
    given = _given_password(password, stdin=password_stdin, prompt=password_prompt)
    with opened(redis=True) as rooms:
        from tokenserver.access.permissions import USER

        secret = given or _generate()
        row = rooms.people.prepare(
            username=username,
            email=email,
            password=secret,
            name=name,
            claims=_read_claims(claims),
            email_verified=email_verified,
            by_operator=True,
        )

        def add(tx: "Transaction", change: "Change") -> dict[str, Any]:
            rooms.people.add(tx, row)
            rooms.rights.assign(tx, change, row.id, USER, granted_by="cli")
            tx.flush()
            return _body(row, rooms.rights.read(tx, row.id).roles)

        body = rooms.feed.change(add)
    _show_password(body, None if given else secret, f"{body['username']} is created", as_json=as_json)


@user.command("list")
@json_option
def list_users(as_json: bool) -> None:
    """List all users with their roles, oldest first."""
    with opened() as rooms:
        roles = rooms.database.read(_roles)
        rows = [_body(row, roles.get(row.id, ())) for row in rooms.people.list()]
    show_table(rows, COLUMNS, as_json=as_json, empty="no users")


@user.command()
@click.argument("user", metavar="USER")
@click.argument("role", metavar="ROLE")
@json_option
def grant(user: str, role: str, as_json: bool) -> None:
    """Give USER a role; it holds from the next request on."""
    with opened(redis=True) as rooms:
        row = get_user(rooms, user)

        def assign(tx: "Transaction", change: "Change") -> dict[str, Any]:
            rooms.rights.lock(tx)
            rooms.rights.assign(tx, change, row.id, role, granted_by="cli")
            tx.flush()
            return _body(row, rooms.rights.read(tx, row.id).roles)

        body = rooms.feed.change(assign)
    show(body, as_json=as_json, text=f"{body['username']} holds: {' '.join(body['roles'])}")


@user.command()
@click.argument("user", metavar="USER")
@click.argument("role", metavar="ROLE")
@json_option
def revoke(user: str, role: str, as_json: bool) -> None:
    """Take a role from USER, unless nobody could manage roles any more."""
    with opened(redis=True) as rooms:
        row = get_user(rooms, user)

        def unassign(tx: "Transaction", change: "Change") -> dict[str, Any]:
            rooms.rights.lock(tx)
            if role not in rooms.rights.read(tx, row.id).roles:
                raise Conflict(f"{row.username} does not hold this role.", code="role_not_held")
            rooms.rights.unassign(tx, change, row.id, role)
            return _body(row, rooms.rights.read(tx, row.id).roles)

        body = rooms.feed.change(unassign)
    show(body, as_json=as_json, text=f"{body['username']} holds: {' '.join(body['roles']) or 'nothing'}")


@user.command()
@click.argument("user", metavar="USER")
@json_option
def disable(user: str, as_json: bool) -> None:
    """Disable USER: every session and token ends at once, and signing in is refused."""
    _set_status(user, "disabled", as_json=as_json)


@user.command()
@click.argument("user", metavar="USER")
@json_option
def enable(user: str, as_json: bool) -> None:
    """Let a disabled USER sign in again."""
    _set_status(user, "active", as_json=as_json)


@user.command("reset-password")
@click.argument("user", metavar="USER")
@password_options
@json_option
def reset_password(user: str, password_stdin: bool, password_prompt: bool, as_json: bool) -> None:
    """Give USER a new password and end every session; without one given, generate it and print it once."""
    given = _given_password(None, stdin=password_stdin, prompt=password_prompt)
    with opened(redis=True) as rooms:
        from tokenserver.errors import Invalid
        from tokenserver.tokens.sessions import EndReason

        row = get_user(rooms, user)
        secret = given or _generate()
        faults = rooms.passwords.faults(secret)
        if faults:
            raise Invalid(faults)
        fields: dict[str, str | None] = {"password_hash": rooms.passwords.hash(secret)}

        def reset(tx: "Transaction", change: "Change") -> dict[str, Any]:
            fresh = rooms.people.update(tx, change, row.id, fields)
            rooms.sessions.end_user(tx, change, row.id, EndReason.PASSWORD_CHANGED)
            return _body(fresh, rooms.rights.read(tx, row.id).roles)

        body = rooms.feed.change(reset)
    text = f"{body['username']} has a new password; every session has ended"
    _show_password(body, None if given else secret, text, as_json=as_json)


@user.command("reset-second-factors")
@click.argument("user", metavar="USER")
@json_option
def reset_second_factors(user: str, as_json: bool) -> None:
    """Take away all second factors of USER, who lost them; the password is enough from then on."""
    with opened() as rooms:
        row = get_user(rooms, user)
        were_any = bool(rooms.database.write(lambda tx: rooms.second_factors.reset(tx, row.id)))
    text = f"{row.username} has no second factor any more" if were_any else f"{row.username} had no second factor"
    show({"id": row.id, "username": row.username, "reset": were_any}, as_json=as_json, text=text)


def get_user(rooms: "Rooms", user: str) -> "User":
    """By user name, e-mail address or id."""
    found = rooms.people.find_any(user)
    if found is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return found


def names_of(tx: "Transaction", user_ids: Iterable[UUID]) -> dict[UUID, str]:
    from sqlalchemy import select

    from tokenserver.identity.models import User

    query = select(User.id, User.username).where(User.id.in_(list(user_ids)))
    return dict(tx.execute(query).tuples().all())


def _set_status(user: str, status: str, *, as_json: bool) -> None:
    with opened(redis=True) as rooms:
        from tokenserver.identity.status import change_status

        row = get_user(rooms, user)

        def set_status(tx: "Transaction", change: "Change") -> dict[str, Any]:
            rooms.rights.lock(tx)
            held = rooms.rights.read(tx, row.id)
            fresh = change_status(
                tx,
                change,
                row.id,
                status,
                permissions=held.permissions,
                people=rooms.people,
                managers=rooms.rights,
                sessions=rooms.sessions,
            )
            return _body(fresh, held.roles)

        body = rooms.feed.change(set_status)
    show(body, as_json=as_json, text=f"{body['username']} is {body['status']}")


def _roles(tx: "Transaction") -> dict[UUID, list[str]]:
    from sqlalchemy import select

    from tokenserver.access.models import Role, RoleAssignment

    found: dict[UUID, list[str]] = {}
    for user_id, name in tx.execute(select(RoleAssignment.user_id, Role.name).join(Role).order_by(Role.name)):
        found.setdefault(user_id, []).append(name)
    return found


def _body(row: "User", roles: Iterable[str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "username": row.username,
        "email": row.email,
        "name": row.name,
        "status": row.status,
        "roles": list(roles),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _given_password(password: str | None, *, stdin: bool, prompt: bool) -> str | None:
    if (password is not None) + stdin + prompt > 1:
        raise click.UsageError("Give the password in one way only.")
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise click.UsageError("There is no password on stdin.")
    if prompt:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _read_claims(file: BinaryIO | None) -> dict[str, Any]:
    from tokenserver.verify.json_object import json_object

    try:
        return {} if file is None else json_object(file.read())
    except ValueError as error:
        raise click.UsageError(f"The file of the claims is no JSON object: {error}.") from None


def _generate() -> str:
    import secrets

    return secrets.token_urlsafe(15)


def _show_password(body: dict[str, Any], generated: str | None, text: str, *, as_json: bool) -> None:
    if generated:
        text += f"\npassword: {generated}\nHand it over safely: it is not shown again."
    show(body | ({"password": generated} if generated else {}), as_json=as_json, text=text)
