"""RFC 8628 section 3.4: a device asks whether its user has approved. Sign first, spend last."""

from datetime import datetime
from typing import Any

from tokenserver.clients.registry import Client
from tokenserver.oauth import resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidGrant
from tokenserver.oauth.grants.request import Collaborators, TokenRequest, event_of
from tokenserver.oauth.issuing import UserContext
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.refresh_family import Family
from tokenserver.web.request_context import current


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    approved = rooms.devices.poll(request.need("device_code"), client)
    user_id, authenticated_at, amr = approved.user_id, approved.authenticated_at, approved.amr
    if user_id is None or authenticated_at is None or amr is None:
        raise InvalidGrant(reason="nobody_approved")
    current().actor = str(user_id)
    if rooms.revocation.is_revoked(
        issued_at=int(authenticated_at.timestamp() * 1000),
        user_id=user_id,
        client_id=client.client_id,
        session_id=approved.session_id,
        family_id=approved.family_id,
    ):
        raise InvalidGrant(reason="ended")
    held = rooms.rights.of(user_id)
    asked = frozenset(approved.scope.split())
    # Nothing asked for by a first-party client: whatever the user holds, as of each refresh.
    is_open = client.first_party and not asked
    # The registration may have become narrower since.
    allowed = asked if client.first_party else asked & client.scope
    granted = held.permissions if is_open else scopes.narrowed(allowed, held.permissions)
    audience = resource.chosen(approved.audience, request.parameters.get("resource"))
    context = UserContext(
        user_id=user_id,
        roles=held.roles,
        # The session of its own, which outlives the browser's, goes by the id of its one family.
        session_id=approved.family_id,
        family_id=approved.family_id,
        authenticated_at=int(authenticated_at.timestamp()),
        amr=amr,
    )
    issued = rooms.issuing.for_user(client, context, granted, audience)

    def start(tx: Transaction) -> tuple[Family, datetime] | None:
        session = rooms.sessions.start_offline(
            tx,
            rooms.devices.spend(tx, approved),
            session_id=approved.family_id,
            client_id=client.client_id,
            authenticated_at=authenticated_at,
            amr=amr,
        )
        if not rooms.sessions.join(tx, session.id, client.client_id):
            raise InvalidGrant(reason="client_deleted")
        if not client.allows("refresh_token"):
            return None
        return rooms.sessions.start_family(
            tx,
            session,
            client_id=client.client_id,
            scope=None if is_open else scopes.to_text(granted),
            audience=approved.audience,
            family_id=approved.family_id,
        )

    family = rooms.feed.database.write(start)
    refresh_token = {"refresh_token": rooms.refresh_tokens.publish(*family)} if family else {}
    rooms.trail.append(
        event_of(rooms, request.need("grant_type"), issued, target=user_id, session=str(context.session_id))
    )
    return issued.response | refresh_token
