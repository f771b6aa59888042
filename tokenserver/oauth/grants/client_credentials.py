"""RFC 6749 section 4.4. No refresh token goes with it (section 4.4.3)."""

from typing import Any

from tokenserver.clients.registry import Client
from tokenserver.oauth import resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.grants.request import Collaborators, FeedMoved, TokenRequest, event_of
from tokenserver.web.request_context import current


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    granted = scopes.for_client(client, scopes.parse(request.parameters.get("scope")))
    audience = resource.chosen(rooms.issuing.audience_of(client), request.parameters.get("resource"))
    issued = rooms.issuing.for_client(client, granted, audience)
    current().actor = client.client_id
    event = event_of(rooms, "client_credentials", issued, target=client.client_id)
    if not rooms.trail.witness(request.known, event):
        raise FeedMoved
    return issued.response
