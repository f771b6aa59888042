"""`tokenserver session`: who is signed in, and ending it."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from tokenserver.cli.command import json_option, opened, show, show_table
from tokenserver.cli.users import get_user, names_of

if TYPE_CHECKING:
    from tokenserver.storage.feed import Change
    from tokenserver.storage.sql import Transaction

COLUMNS = ("id", "username", "client_id", "created_at", "last_used_at", "address", "user_agent")


@click.group()
def session() -> None:
    """Sessions: one sign-in of a user each."""


@session.command("list")
@click.option("--user", metavar="USER", help="Only those of this user: user name, e-mail address or id.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many, newest first."
)
@json_option
def list_sessions(user: str | None, limit: int, as_json: bool) -> None:
    """List the live sessions, newest first."""
    with opened() as rooms:
        user_id = get_user(rooms, user).id if user else None
        found = rooms.sessions.live(user_id, limit=limit)
        names = rooms.database.read(lambda tx: names_of(tx, {each.user_id for each, _ in found}))
    rows = [
        {
            "id": each.id,
            "user_id": each.user_id,
            "username": names.get(each.user_id),
            "client_id": each.client_id,
            "created_at": each.created_at,
            "last_used_at": used,
            "expires_at": each.expires_at,
            "address": each.address,
            "user_agent": each.user_agent,
        }
        for each, used in found
    ]
    show_table(rows, COLUMNS, as_json=as_json, empty="no live sessions")


@session.command()
@click.argument("session_id", metavar="[ID]", type=click.UUID, required=False)
@click.option("--user", metavar="USER", help="End all sessions of this user: user name, e-mail address or id.")
@click.option(
    "--all",
    "everybody",
    is_flag=True,
    help="End all sessions of everybody, refuse every token issued so far, of clients too, and compare all that "
    "Redis holds with the database. The last step of each restore.",
)
@json_option
def revoke(session_id: UUID | None, user: str | None, everybody: bool, as_json: bool) -> None:
    """End a session, or all of a user, with the access and refresh tokens issued in them; or everything."""
    from tokenserver.errors import NotFound

    if [session_id is not None, user is not None, everybody].count(True) != 1:
        raise click.UsageError("Give either the ID of a session, --user or --all.")
    if everybody:
        _revoke_all(as_json=as_json)
        return
    with opened(redis=True) as rooms:
        from tokenserver.tokens.sessions import EndReason

        user_id = get_user(rooms, user).id if user else None

        def end(tx: "Transaction", change: "Change") -> list[UUID]:
            live = rooms.sessions.live_ids(tx, user_id=user_id, session_id=session_id)
            if session_id is not None and not live:
                raise NotFound("There is no such live session.", code="session_not_found")
            rooms.sessions.end(tx, change, user_id=user_id, session_id=session_id, reason=EndReason.REVOKED)
            return live

        ended = rooms.feed.change(end)
    show({"ended": ended}, as_json=as_json, text=f"{len(ended)} ended")


def _revoke_all(*, as_json: bool) -> None:
    with opened(redis=True) as rooms:
        from tokenserver.storage import feed
        from tokenserver.tokens.sessions import EndReason

        def end(tx: "Transaction", change: "Change") -> int:
            # A restored database doesn't know all that Redis does, such as families that began after the backup.
            feed.distrust(tx)
            return rooms.sessions.end_all(tx, change, EndReason.REVOKED)

        count = rooms.feed.change(end)
        for bucket in rooms.store.buckets:
            rooms.feed.verify(bucket)
    text = f"{count} ended; every token issued so far is refused, and everybody signs in again"
    show({"sessions": count}, as_json=as_json, text=text)
