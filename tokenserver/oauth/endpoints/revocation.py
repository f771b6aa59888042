"""RFC 7009. Answered after the token is dead everywhere, never before."""

from typing import Any
from uuid import UUID

from flask import Response

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.registry import Client
from tokenserver.oauth.endpoints.request import Server, authenticated, json_answer, read_form
from tokenserver.oauth.errors import InvalidGrant
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.refresh_token import PREFIX
from tokenserver.tokens.sessions import EndReason
from tokenserver.verify.errors import InvalidToken


def view(server: Server) -> Response:
    return json_answer(answer(server, read_form()))


def answer(server: Server, form: TokenRequest) -> dict[str, Any]:
    client = authenticated(server, form)
    server.client_limits.take("revocation", client)
    token = form.need("token")
    # Section 2.1: a wrong token_type_hint doesn't hide a token.
    if token.startswith(PREFIX):
        _revoke_family(server, client, token)
    else:
        _revoke_access_token(server, client, token)
    # Section 2.2: 200 for unknown and dead tokens too; the client's wish holds.
    return {}


def _revoke_family(server: Server, client: Client, token: str) -> None:
    """Any generation will do: the client wants the chain to end. Its access tokens end too (section 2.1)."""
    presented = server.rooms.refresh_tokens.parse(token)
    family = server.rooms.refresh_tokens.find(presented[0]) if presented else None
    if family is None:
        return
    _refuse_foreign(client, family.client_id)

    def end(tx: Transaction, change: Change) -> None:
        # Noted even if SQL says that it ended already: that end may not have reached Redis.
        change.note(Kind.FAMILY, family.id)
        server.rooms.sessions.end(tx, change, family_id=family.id, reason=EndReason.REVOKED)

    server.rooms.feed.change(end)


def _revoke_access_token(server: Server, client: Client, token: str) -> None:
    try:
        claims = server.active_tokens.any_audience.verify(token)
    except InvalidToken:
        return
    _refuse_foreign(client, claims.client_id)

    def deny(tx: Transaction, change: Change) -> None:
        change.note(Kind.TOKEN, claims.jti)
        record(tx, Event.ACCESS_TOKEN_REVOKED, target=UUID(claims.jti))

    server.rooms.feed.change(deny)


def _refuse_foreign(client: Client, owner: str) -> None:
    # Section 2.1: the request is refused and the client is told, rather than left to believe that it worked.
    if client.client_id != owner:
        raise InvalidGrant("The token was not issued to this client.", reason="wrong_client")
