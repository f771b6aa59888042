"""`tokenserver client`: registered clients, in the words of RFC 7591."""

from typing import TYPE_CHECKING, Any, BinaryIO, Final
from uuid import UUID

import click

from tokenserver.cli.command import json_option, opened, show, show_table
from tokenserver.clients.metadata import AUTH_METHODS, GRANT_TYPES

if TYPE_CHECKING:
    from tokenserver.clients.metadata import Metadata
    from tokenserver.clients.models import ClientRow, InitialAccessToken
    from tokenserver.storage.feed import Change
    from tokenserver.storage.sql import Transaction

COLUMNS: Final = ("client_id", "client_name", "grant_types", "token_endpoint_auth_method", "scope")


@click.group()
def client() -> None:
    """Registered clients: the programs that ask for tokens."""


@client.command()
@click.option("--id", "client_id", metavar="ID", help="The client_id; a random one when not given.")
@click.option("--name", required=True, help="The client_name, for people.")
@click.option(
    "--grant",
    "grants",
    type=click.Choice(sorted(GRANT_TYPES)),
    multiple=True,
    help="A grant type that it may use; give the option once for each.",
)
@click.option(
    "--response-type",
    "response_types",
    multiple=True,
    help="Such as `code id_token`; `code` when not given, for clients that use codes.",
)
@click.option(
    "--scope", "scopes", multiple=True, help="The most it may ask for: give it again, or separate with spaces."
)
@click.option(
    "--auth-method",
    type=click.Choice(sorted(AUTH_METHODS)),
    help="How it authenticates at the token endpoint [client_secret_basic]; `none` makes a public client.",
)
@click.option(
    "--audience",
    "audiences",
    metavar="URI",
    multiple=True,
    help="An `aud` of its access tokens, instead of this server; give the option once for each.",
)
@click.option(
    "--redirect-uri",
    "redirect_uris",
    metavar="URI",
    multiple=True,
    help="Where users may be sent back to; give the option once for each.",
)
@click.option(
    "--post-logout-redirect-uri",
    "post_logout_redirect_uris",
    metavar="URI",
    multiple=True,
    help="Where users may be sent after they signed out; give the option once for each.",
)
@click.option("--jwks-uri", metavar="URI", help="Where its public keys are.")
@click.option("--backchannel-logout-uri", metavar="URI", help="Where it wants to be told that a session ended.")
@click.option(
    "--metadata",
    "metadata_file",
    type=click.File("rb"),
    metavar="FILE",
    help="A JSON object of any other metadata, by the names of RFC 7591 and OpenID Connect; options win.",
)
@click.option(
    "--first-party", is_flag=True, help="Ask users for no consent; a user's token covers all that the user holds."
)
@json_option
def create(
    client_id: str | None,
    name: str,
    grants: tuple[str, ...],
    response_types: tuple[str, ...],
    scopes: tuple[str, ...],
    auth_method: str | None,
    audiences: tuple[str, ...],
    redirect_uris: tuple[str, ...],
    post_logout_redirect_uris: tuple[str, ...],
    jwks_uri: str | None,
    backchannel_logout_uri: str | None,
    metadata_file: BinaryIO | None,
    first_party: bool,
    as_json: bool,
) -> None:
    """Register a client and print its client_secret, which is never shown again."""
    given = {
        "client_name": name,
        "grant_types": list(grants),
        "response_types": list(response_types),
        "scope": " ".join(scopes),
        "token_endpoint_auth_method": auth_method,
        "audience": list(audiences),
        "redirect_uris": list(redirect_uris),
        "post_logout_redirect_uris": list(post_logout_redirect_uris),
        "jwks_uri": jwks_uri,
        "backchannel_logout_uri": backchannel_logout_uri,
        "first_party": first_party,
    }
    metadata = _read(metadata_file) | {member: value for member, value in given.items() if value}
    if not metadata.get("grant_types"):
        raise click.UsageError("Name one grant type or more: --grant, or grant_types in the metadata.")
    with opened(redis=True) as rooms:
        from tokenserver.clients import sector

        wanted = _loaded(metadata)
        sector.check(wanted, rooms.fetcher)
        row, secret = rooms.clients.register(wanted, client_id)
    lines = [f"client_id:     {row.client_id}"]
    if secret:
        lines += [f"client_secret: {secret}", "Keep the secret: it is not shown again."]
    data = _body(row) | ({"client_secret": secret} if secret else {})
    show(data, as_json=as_json, text="\n".join(lines))


@client.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """List all clients, oldest first."""
    with opened() as rooms:
        rows = [_body(row) for row in rooms.clients.list()]
    show_table(rows, COLUMNS, as_json=as_json, empty="no clients")


@client.command("show")
@click.argument("client_id")
@json_option
def show_client(client_id: str, as_json: bool) -> None:
    """Show one client; its secret isn't stored and can't be shown."""
    with opened() as rooms:
        body = _body(rooms.clients.get(client_id))
    if as_json:
        show(body, as_json=True, text="")
    else:
        keys = body["jwks"]["keys"] if body["jwks"] else []
        body["jwks"] = [key.get("kid", key["kty"]) for key in keys]
        rows = [{"field": field, "value": value} for field, value in body.items()]
        show_table(rows, ("field", "value"), as_json=False, empty="")


@client.command("rotate-secret")
@click.argument("client_id")
@json_option
def rotate_secret(client_id: str, as_json: bool) -> None:
    """Give a client a new secret and print it once; the old one fails from the next request on."""
    with opened(redis=True) as rooms:
        secret = rooms.feed.change(lambda tx, change: rooms.clients.rotate_secret(tx, change, client_id))
    text = f"client_secret: {secret}\nKeep the secret: it is not shown again."
    show({"client_id": client_id, "client_secret": secret}, as_json=as_json, text=text)


@client.command()
@click.argument("client_id")
@json_option
def delete(client_id: str, as_json: bool) -> None:
    """Delete a client, its sessions and every token that it was issued."""
    with opened(redis=True) as rooms:
        from tokenserver.tokens.sessions import EndReason

        def end(tx: "Transaction", change: "Change") -> None:
            rooms.clients.delete(tx, change, client_id)
            rooms.sessions.end(tx, change, client_id=client_id, reason=EndReason.CLIENT_DELETED)

        rooms.feed.change(end)
    show({"client_id": client_id, "deleted": True}, as_json=as_json, text=f"{client_id} is deleted")


def _read(file: BinaryIO | None) -> dict[str, Any]:
    import json

    try:
        found = {} if file is None else json.load(file)
    except ValueError:
        raise click.BadParameter("not JSON", param_hint="--metadata") from None
    if not isinstance(found, dict):
        raise click.BadParameter("not a JSON object", param_hint="--metadata")
    return found


def _loaded(metadata: dict[str, Any]) -> "Metadata":
    """Raises Invalid, as the REST endpoint would."""
    from marshmallow import RAISE, ValidationError

    from tokenserver.clients.metadata import Metadata
    from tokenserver.clients.schemas import ClientMetadataSchema
    from tokenserver.errors import FieldError, Invalid

    try:
        return Metadata(**ClientMetadataSchema().load(metadata, unknown=RAISE))
    except ValidationError as error:
        faults = [FieldError(str(member), str(fault)) for member, fault in error.messages_dict.items()]
        raise Invalid(faults) from None


# Invitations


@client.command()
@click.option("--note", default="", help="For whom, or for what.")
@click.option("--uses", type=click.IntRange(1, 1_000_000), help="How many clients it may register [any number].")
@click.option("--days", type=click.IntRange(1, 3650), default=7, show_default=True, help="How long it is good.")
@json_option
def invite(note: str, uses: int | None, days: int, as_json: bool) -> None:
    """Print an initial access token, by which clients register themselves at /oauth/register (RFC 7591)."""
    with opened() as rooms:
        row, token = rooms.initial_access_tokens.invite(
            note=note[:255], uses=uses, lifetime=days * 86400, created_by="cli"
        )
    text = f"initial_access_token: {token}\nKeep it: it is not shown again."
    show({"id": str(row.id), "initial_access_token": token} | _invitation(row), as_json=as_json, text=text)


@client.command()
@json_option
def invitations(as_json: bool) -> None:
    """List the initial access tokens, oldest first; the tokens themselves aren't stored."""
    with opened() as rooms:
        rows = [{"id": str(row.id)} | _invitation(row) for row in rooms.initial_access_tokens.list()]
    show_table(rows, ("id", "note", "uses_left", "expires_at"), as_json=as_json, empty="no invitations")


@client.command()
@click.argument("invitation", type=click.UUID)
@json_option
def uninvite(invitation: UUID, as_json: bool) -> None:
    """Take an initial access token back; clients that it registered stay."""
    with opened() as rooms:
        rooms.initial_access_tokens.revoke(invitation)
    show({"id": str(invitation), "revoked": True}, as_json=as_json, text=f"{invitation} is taken back")


def _invitation(row: "InitialAccessToken") -> dict[str, Any]:
    return {"note": row.note, "uses_left": row.uses_left, "expires_at": row.expires_at}


def _body(row: "ClientRow") -> dict[str, Any]:
    from tokenserver.clients.registry import described

    return described(row)
