"""`/clients`: registered clients, in the words of RFC 7591, for those who may see and change them."""

from typing import Any, Final

from flask import Blueprint

from tokenserver.clients import sector
from tokenserver.clients.metadata import Metadata
from tokenserver.clients.models import ClientRow
from tokenserver.clients.reach import effect, live_sessions, own_permissions, require_within
from tokenserver.clients.registry import Clients, described
from tokenserver.clients.schemas import (
    ClientMetadataSchema,
    ClientPageSchema,
    ClientQuerySchema,
    ClientSchema,
    ClientSecretSchema,
    NewClientSchema,
    RegisteredClientSchema,
)
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import EndReason, Sessions
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, rehearsable
from tokenserver.web.fetch import Fetcher
from tokenserver.web.holder import current_holder
from tokenserver.web.pagination import Pages
from tokenserver.web.wire import gives, queries, refuses, require_match, takes

READ: Final = "clients:read"
WRITE: Final = "clients:write"


def blueprint(*, feed: Feed, clients: Clients, sessions: Sessions, pages: Pages, fetcher: Fetcher) -> Blueprint:
    routes = Blueprint("clients", __name__, url_prefix="/clients")

    @routes.get("")
    @requires(READ)
    @queries(ClientQuerySchema)
    @gives(ClientPageSchema)
    def list_clients(query: dict[str, Any]) -> dict[str, Any]:
        """List or search the clients, by id."""
        words, limit = query["q"], query["limit"]
        listing = f"clients {words}"
        position = pages.position(listing, query)
        found = clients.search(words, limit=limit + 1, after=position[0] if position else None)
        page = pages.page(listing, found, limit, lambda row: [row.client_id])
        page["items"] = [described(row) for row in page["items"]]
        return page

    @routes.post("")
    @requires(WRITE)
    @takes(NewClientSchema)
    @rehearsable
    @gives(RegisteredClientSchema, 201)
    @refuses((403, "exceeds_own_permissions"), (409, "client_exists"))
    def create_client(body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Register a client. Its secret, if it is confidential, is shown in this answer and never again."""
        client_id = body.pop("client_id", None)
        metadata = _checked(clients, fetcher, Metadata(**body), is_real=not dry_run)

        def create(tx: Transaction, change: Change) -> dict[str, Any]:
            row, secret = clients.add(tx, change, metadata, client_id)
            require_within(current_holder(), row, clients.permissions)
            if dry_run:
                raise Rehearsed(effect(row.client_id, frozenset(), own_permissions(row)))
            return _registered(row, secret)

        return feed.change(create)

    @routes.get("/<client_id>")
    @requires(READ)
    @gives(ClientSchema, etag=True)
    @refuses((404, "client_not_found"))
    def get_client(client_id: str) -> dict[str, Any]:
        """Show a client; its secret isn't stored and can't be shown."""
        return described(clients.get(client_id))

    @routes.put("/<client_id>")
    @requires(WRITE)
    @takes(ClientMetadataSchema)
    @rehearsable
    @gives(RegisteredClientSchema, etag=ClientSchema)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "client_not_found"),
        (409, "builtin_client"),
        (412, "precondition_failed"),
    )
    def put_client(client_id: str, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Replace a client's metadata: what is left out gets its default. What the client may do by itself follows
        at once; users' tokens keep the scope that they have until they expire. A client that becomes confidential
        gets a secret, shown in this answer and never again."""
        metadata = _checked(clients, fetcher, Metadata(**body), is_real=not dry_run)

        def update(tx: Transaction, change: Change) -> dict[str, Any]:
            row = _locked(clients, tx, client_id)
            held, allowed = own_permissions(row), (row.grant_types, row.scope)
            row, secret = clients.update(tx, change, client_id, metadata)
            require_within(current_holder(), row, clients.permissions)
            if dry_run:
                touched = live_sessions(tx, client_id) if (row.grant_types, row.scope) != allowed else 0
                raise Rehearsed(effect(client_id, held, own_permissions(row), touched))
            return _registered(row, secret)

        return feed.change(update)

    @routes.delete("/<client_id>")
    @requires(WRITE)
    @rehearsable
    @gives(None, 204)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "client_not_found"),
        (409, "builtin_client"),
        (412, "precondition_failed"),
    )
    def delete_client(client_id: str, *, dry_run: bool) -> None:
        """Delete a client; its sessions and all its tokens end at once."""

        def delete(tx: Transaction, change: Change) -> None:
            held = own_permissions(_locked(clients, tx, client_id))
            ending = live_sessions(tx, client_id) if dry_run else 0
            clients.delete(tx, change, client_id)
            sessions.end(tx, change, client_id=client_id, reason=EndReason.CLIENT_DELETED)
            if dry_run:
                raise Rehearsed(effect(client_id, held, frozenset(), ending))

        feed.change(delete)

    @routes.post("/<client_id>/secret")
    @requires(WRITE)
    @rehearsable
    @gives(ClientSecretSchema)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "client_not_found"),
        (409, "public_client"),
        (412, "precondition_failed"),
    )
    def rotate_secret(client_id: str, *, dry_run: bool) -> dict[str, Any]:
        """Give a client a new secret; the old one fails from the next request on. Its sessions and tokens stay."""

        def rotate(tx: Transaction, change: Change) -> dict[str, Any]:
            _locked(clients, tx, client_id)
            secret = clients.rotate_secret(tx, change, client_id)
            if dry_run:
                raise Rehearsed(Effect())
            return {"client_id": client_id} | _shown(secret)

        return feed.change(rotate)

    return routes


def _checked(clients: Clients, fetcher: Fetcher, metadata: Metadata, *, is_real: bool) -> Metadata:
    """Raises Invalid. What takes long is done here, before the transaction."""
    clients.check(metadata)
    sector.check(metadata, fetcher)
    if is_real:
        clients.ensure_keys(metadata)
    return metadata


def _locked(clients: Clients, tx: Transaction, client_id: str) -> ClientRow:
    """For a write of this request, which may be refused before anything is written."""
    row = clients.lock(tx, client_id)
    require_within(current_holder(), row, clients.permissions)
    require_match(ClientSchema, described(row))
    return row


def _registered(row: ClientRow, secret: str | None) -> dict[str, Any]:
    return described(row) | ({} if secret is None else _shown(secret))


def _shown(secret: str) -> dict[str, Any]:
    return {"client_secret": secret, "client_secret_expires_at": 0}
