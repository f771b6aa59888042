"""`tokenserver client`: registered clients, in the words of RFC 7591."""

from typing import TYPE_CHECKING, Any, Final

import click

from tokenserver.cli.command import json_option, opened, show, show_table
from tokenserver.clients.metadata import AUTH_METHODS, GRANT_TYPES

if TYPE_CHECKING:
    from tokenserver.clients.models import ClientRow
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
    required=True,
    help="A grant type that it may use; give the option once for each.",
)
@click.option(
    "--scope", "scopes", multiple=True, help="The most it may ask for: give it again, or separate with spaces."
)
@click.option(
    "--auth-method",
    type=click.Choice(sorted(AUTH_METHODS)),
    default="client_secret_basic",
    show_default=True,
    help="How it authenticates at the token endpoint; `none` makes a public client.",
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
    "--first-party", is_flag=True, help="Ask users for no consent; a user's token covers all that the user holds."
)
@json_option
def create(
    client_id: str | None,
    name: str,
    grants: tuple[str, ...],
    scopes: tuple[str, ...],
    auth_method: str,
    audiences: tuple[str, ...],
    redirect_uris: tuple[str, ...],
    first_party: bool,
    as_json: bool,
) -> None:
    """Register a client and print its client_secret, which is never shown again."""
    with opened(redis=True) as rooms:
        row, secret = rooms.clients.create(
            client_id=client_id,
            client_name=name,
            grant_types=grants,
            scope=" ".join(scopes).split(),
            token_endpoint_auth_method=auth_method,
            audience=audiences,
            redirect_uris=redirect_uris,
            first_party=first_party,
        )
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


def _body(row: "ClientRow") -> dict[str, Any]:
    from tokenserver.clients.registry import described

    return described(row)
