"""Pages of clients that the signed-out page embeds, so that each forgets its user (OIDC Front-Channel Logout)."""

from collections.abc import Iterable
from urllib.parse import urlencode
from uuid import UUID

from tokenserver.clients.registry import Client


def frames(clients: Iterable[Client], issuer: str, session_id: UUID) -> list[str]:
    """Their addresses, for a session that has ended."""
    return [
        _address(client.metadata.frontchannel_logout_uri, client, issuer, session_id)
        for client in clients
        if client.metadata.frontchannel_logout_uri is not None
    ]


def _address(uri: str, client: Client, issuer: str, session_id: UUID) -> str:
    # Section 2: which session, of which server, where that was registered; a query of the URI is kept.
    if not client.metadata.frontchannel_logout_session_required:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode({'iss': issuer, 'sid': str(session_id)})}"
