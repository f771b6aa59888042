"""RFC 6749 section 4.4. No refresh token goes with it (section 4.4.3)."""

from typing import Any

from tokenserver.clients.registry import Client
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.grants.request import Collaborators, TokenRequest


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    granted = scopes.for_client(client, scopes.parse(request.parameters.get("scope")))
    return rooms.issuing.for_client(client, granted)
