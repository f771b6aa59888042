"""RFC 6749 section 6, with rotation (RFC 9700 section 4.14.2). Sign first, spend last: nothing may fail after the
token was spent.
"""

import json
from typing import Any

from tokenserver.clients.registry import Client
from tokenserver.oauth import resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidGrant, InvalidScope
from tokenserver.oauth.grants.request import Collaborators, FeedMoved, TokenRequest, event_of
from tokenserver.oauth.issuing import UserContext
from tokenserver.storage.feed import now_ms
from tokenserver.tokens.refresh_family import Family, Outcome
from tokenserver.web.request_context import current


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    presented = rooms.refresh_tokens.parse(request.need("refresh_token"))
    if presented is None:
        # Certain without asking any store: it never was a token of this server.
        raise InvalidGrant(reason="malformed", is_certain=True)
    family_id, generation = presented
    family = rooms.refresh_tokens.find(family_id)
    # RFC 6749 section 6: bound to the client that it was issued to
    if family is None or family.client_id != client.client_id:
        raise InvalidGrant(reason="unknown_family" if family is None else "wrong_client")
    current().actor = str(family.user_id)
    if is_ended(rooms, family):
        raise InvalidGrant(reason="ended")
    held = rooms.rights.of(family.user_id)
    granted = _scope(family, scopes.parse(request.parameters.get("scope")), held.permissions)
    # RFC 8707 section 2.2: within what was granted, and for this access token alone
    audience = resource.chosen(family.audience, request.parameters.get("resource"))
    context = UserContext(
        user_id=family.user_id,
        roles=held.roles,
        session_id=family.session_id,
        family_id=family.id,
        authenticated_at=family.authenticated_at // 1000,
        amr=family.amr,
        claims=None if family.claims is None else json.loads(family.claims),
    )
    issued = rooms.issuing.for_user(client, context, granted, audience)
    event = event_of(rooms, "refresh_token", issued, target=family.user_id, session=str(family.session_id))
    spent = rooms.refresh_tokens.spend(family, generation, request.known, event)
    if spent.outcome is Outcome.STALE:
        raise FeedMoved
    if spent.outcome is Outcome.REUSED:
        # Returned, not raised, by who found it: no rollback can undo the end of the family.
        rooms.sessions.end_reused(family.id)
    if spent.token is None:
        raise InvalidGrant(reason=spent.outcome.value)
    return issued.response | {"refresh_token": spent.token}


def is_ended(rooms: Collaborators, family: Family) -> bool:
    """By the same cutoffs as access tokens; and its user must be there and active."""
    if family.expires_at <= now_ms() or rooms.revocation.is_revoked(
        issued_at=family.authenticated_at,
        user_id=family.user_id,
        client_id=family.client_id,
        session_id=family.session_id,
        family_id=family.id,
    ):
        return True
    person = rooms.people.find(family.user_id)
    return person is None or not person.is_active


def _scope(family: Family, asked: frozenset[str] | None, held: frozenset[str]) -> frozenset[str]:
    """RFC 6749 section 6: nothing that was not originally granted. The family keeps its scope, whatever is asked
    for this once."""
    granted = None if family.scope is None else frozenset(family.scope.split())
    if asked is None:
        return held if granted is None else scopes.narrowed(granted, held)
    if not asked <= (held if granted is None else granted):
        raise InvalidScope
    return scopes.narrowed(asked, held)
