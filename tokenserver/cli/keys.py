"""`tokenserver keys`: the ring of signing keys and MAC secrets. Running servers follow within seconds."""

from typing import TYPE_CHECKING, Any

import click

from tokenserver.cli.command import json_option, opened, sentence, show, show_table
from tokenserver.config import SIGNING_ALGS
from tokenserver.errors import TokenserverError, Unavailable

if TYPE_CHECKING:
    from tokenserver.rooms import Rooms
    from tokenserver.storage.feed import Change
    from tokenserver.storage.sql import Transaction
    from tokenserver.tokens.key_lifecycle import Rotation

COLUMNS = ("kid", "alg", "state", "activated_at", "retired_at", "remove_after")


@click.group()
def keys() -> None:
    """The ring of signing keys."""


@keys.command("list")
@click.option("--secrets", is_flag=True, help="Also list the MAC secrets (which, not what they are).")
@json_option
def list_keys(secrets: bool, as_json: bool) -> None:
    """List the signing keys: next, active, and retired ones until they are pruned."""
    with opened() as rooms:
        entries = rooms.keys.entries() + (rooms.keys.secret_entries() if secrets else ())
    rows = [entry.to_json() for entry in entries]
    show_table(rows, COLUMNS, as_json=as_json, empty="no keys")


@keys.command()
@click.option("--alg", type=click.Choice(SIGNING_ALGS), help="Rotate the keys of this algorithm alone.")
@click.option(
    "--emergency",
    is_flag=True,
    help="A key has leaked: throw away all keys and MAC secrets at once. Every token issued so far is refused "
    "from then on, and everybody signs in again.",
)
@json_option
def rotate(alg: str | None, emergency: bool, as_json: bool) -> None:
    """Let the next key sign and publish a new next one; no valid token is refused because of it."""
    with opened(redis=emergency) as rooms:
        from tokenserver.identity.second_factors.authenticator_app import SEALING

        sealing_keys = rooms.keys.secrets(SEALING) if emergency else ()
        rotation = rooms.keys.rotate(alg, emergency=emergency)
        if emergency:
            # Who could read one file of the ring could read all.
            rooms.keys.rotate_secret(rooms.settings.refresh_token_ttl, emergency=True)
        try:
            rooms.second_factors.apps.reseal(sealing_keys)
            _tell_servers(rooms, rotation, emergency=emergency)
            rooms.sealer.seal()  # the log is vouched for by a key that is still published
        except Unavailable as error:
            what = "the keys are rotated, but that could not be recorded"
            raise TokenserverError(private=f"{what}: {sentence(error)}") from error
    gone = "gone" if emergency else "retired"
    lines = [f"{entry.kid} ({entry.alg}) signs now" for entry in rotation.activated]
    lines += [f"{entry.kid} ({entry.alg}) is {gone}" for entry in rotation.replaced]
    if emergency:
        lines.append("every token issued so far is refused; everybody signs in again")
    data = {
        "activated": [entry.to_json() for entry in rotation.activated],
        "replaced": [entry.kid for entry in rotation.replaced],
    }
    show(data, as_json=as_json, text="\n".join(lines))


def _tell_servers(rooms: "Rooms", rotation: "Rotation", *, emergency: bool) -> None:
    from tokenserver.audit.events import Event
    from tokenserver.audit.record import record
    from tokenserver.storage.feed import Kind

    def note(tx: "Transaction", change: "Change") -> None:
        reason = "emergency" if emergency else None
        for entry in rotation.activated:
            replaced: list[Any] = [old.kid for old in rotation.replaced if old.alg == entry.alg]
            record(tx, Event.SIGNING_KEY_ROTATED, target=entry.kid, reason=reason, replaced=replaced)
        if emergency:
            change.note(Kind.KEYS_CHANGED)
            rooms.sessions.end_all(tx, change)

    rooms.feed.change(note)


@keys.command()
@json_option
def prune(as_json: bool) -> None:
    """Delete the retired keys whose last token has expired; running servers do so by themselves."""
    with opened() as rooms:
        gone = rooms.keys.prune()
    text = "\n".join(f"{entry.kid} ({entry.alg}) is deleted" for entry in gone) or "nothing to prune"
    show({"pruned": [entry.kid for entry in gone]}, as_json=as_json, text=text)
