"""Clients that register and manage themselves (RFC 7591, RFC 7592, OpenID Connect Dynamic Client Registration)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from flask import Response, request

from tokenserver.clients import sector, self_registration
from tokenserver.clients.initial_access_token import InitialAccessTokens
from tokenserver.clients.metadata import Metadata
from tokenserver.clients.models import ClientRow
from tokenserver.clients.reach import own_permissions
from tokenserver.clients.registry import Client, described
from tokenserver.errors import Invalid
from tokenserver.oauth.endpoints.request import Server, json_answer
from tokenserver.oauth.errors import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidSoftwareStatement,
    RegistrationClosed,
)
from tokenserver.storage.feed import Change
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import EndReason
from tokenserver.verify.bearer import credentials
from tokenserver.verify.errors import InvalidToken, MissingCredentials
from tokenserver.web.rate_limit import Limit, network_of
from tokenserver.web.request_context import current
from tokenserver.web.wire import read_object

T = TypeVar("T")

PATH: Final = "/oauth/register"
# RFC 7592 section 2.2: what a client must not send when it updates itself.
OURS: Final = (
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
)
# In an answer to a client, what only admins decide about has no place.
HIDDEN: Final = ("created_at", "updated_at", *self_registration.NOT_ITS_OWN)


def view(server: Server) -> Response:
    """RFC 7591 section 3.1."""
    token = _token(required=server.settings.client_registration == "token")
    if server.settings.client_registration == "closed":
        raise RegistrationClosed
    invitation = None if token is None else server.initial_access_tokens.find(token)
    if token is not None and invitation is None:
        raise InvalidToken("no such initial access token")
    server.rooms.feed.sync()
    limit = Limit.of("register-client", server.settings.limit_register)
    server.limits.take((limit, network_of(current().address)))
    current().actor = str(invitation.id) if invitation else "registration"
    metadata = _metadata(
        read_object(),
        scopes=server.clients.permissions if invitation else (),
        grants=self_registration.INVITED if invitation else (),
        own=(),
    )
    _prepare(server, metadata)

    def register(tx: Transaction, change: Change) -> tuple[ClientRow, str | None, str]:
        if token is not None and not InitialAccessTokens.spend(tx, token):
            raise InvalidToken("no use of the initial access token is left")
        row, secret = server.clients.add(tx, change, metadata)
        return row, secret, self_registration.give_token(row)

    row, secret, registration_access_token = _told(lambda: server.rooms.feed.change(register))
    return json_answer(_registered(server, row, secret, registration_access_token), 201)


def manage(server: Server) -> Response:
    """RFC 7592 sections 2.1 to 2.3."""
    token = _token(required=True)
    server.rooms.feed.sync()
    client = server.clients.find((request.view_args or {})["client_id"])
    # RFC 7592 section 2.1: 401 for a client that isn't there any more; and a token is good for its client alone.
    digest = None if client is None else client.registration_access_token_digest
    if not self_registration.is_token_of(token or "", digest) or client is None or token is None:
        raise InvalidToken("not the registration access token of this client")
    current().actor = current().client_id = client.client_id
    if request.method == "DELETE":
        return _delete(server, client)
    if request.method == "PUT":
        return _update(server, client, token)
    return json_answer(_registered(server, server.clients.get(client.client_id), None, token))


def _update(server: Server, client: Client, token: str) -> Response:
    body = read_object()
    # Section 2.2: client_id MUST be there and its own, a client_secret its own, and nothing of what we decide.
    if body.get("client_id") != client.client_id or not set(OURS).isdisjoint(body):
        raise InvalidClientMetadata("Send client_id, and none of the members that the server decides about.")
    if "client_secret" in body and not server.clients.is_secret_of(client, body["client_secret"]):
        raise InvalidClientMetadata("The client_secret is not the client's.")
    # No more than it has: nobody invites it a second time.
    own = own_permissions(server.clients.get(client.client_id))
    wanted = _metadata(body, scopes=client.scope, grants=client.grant_types, own=own)
    metadata = self_registration.kept(wanted, client.metadata)
    _prepare(server, metadata)

    def update(tx: Transaction, change: Change) -> tuple[ClientRow, str | None]:
        return server.clients.update(tx, change, client.client_id, metadata)

    row, secret = _told(lambda: server.rooms.feed.change(update))
    return json_answer(_registered(server, row, secret, token))


def _delete(server: Server, client: Client) -> Response:
    def delete(tx: Transaction, change: Change) -> None:
        server.clients.delete(tx, change, client.client_id)
        server.rooms.sessions.end(tx, change, client_id=client.client_id, reason=EndReason.CLIENT_DELETED)

    server.rooms.feed.change(delete)
    return Response(status=204, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def _prepare(server: Server, metadata: Metadata) -> None:
    def prepare() -> None:
        server.clients.check(metadata)
        sector.check(metadata, server.fetcher)
        server.clients.ensure_keys(metadata)

    _told(prepare)


def _metadata(
    body: Mapping[str, Any], *, scopes: Collection[str], grants: Collection[str], own: Collection[str]
) -> Metadata:
    if "software_statement" in body:
        raise InvalidSoftwareStatement
    return _told(lambda: self_registration.read(body, scopes=scopes, grants=grants, own=own))


def _told(work: Callable[[], T]) -> T:
    """RFC 7591 section 3.2.2: an error tells which members are wrong, by their names."""
    try:
        return work()
    except Invalid as error:
        # Names come from our own list, never from the request.
        names = list(dict.fromkeys(fault.field.partition(".")[0] for fault in error.errors))
        kind = InvalidRedirectUri if names == ["redirect_uris"] else InvalidClientMetadata
        sentences = dict.fromkeys(fault.message for fault in error.errors)
        text = f"{', '.join(names)}: {' '.join(sentences)}".replace('"', "'").replace("\\", "/")
        raise kind("".join(c for c in text if " " <= c <= "~")[:500]) from None


def _token(*, required: bool) -> str | None:
    authorization = request.headers.get("Authorization")
    if authorization is None and not required:
        return None
    if authorization is None:
        raise MissingCredentials
    return credentials(authorization)


def _registered(server: Server, row: ClientRow, secret: str | None, token: str) -> dict[str, Any]:
    """RFC 7591 section 3.2.1: all registered metadata; what isn't set is left out."""
    shown = {name: value for name, value in described(row).items() if value is not None and name not in HIDDEN}
    if secret is not None:
        shown |= {"client_secret": secret, "client_secret_expires_at": 0}
    return shown | {
        "registration_access_token": token,
        "registration_client_uri": f"{server.settings.issuer}{PATH}/{row.client_id}",
    }
