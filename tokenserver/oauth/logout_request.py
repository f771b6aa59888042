"""What a client asks for that wants its user signed out (OIDC RP-Initiated Logout section 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tokenserver.clients.registry import Client, Clients
from tokenserver.oauth import id_token_hint
from tokenserver.verify.jwks import KeySource

BAD_HINT: Final = "The id_token_hint is no ID token of this server."
OTHER_CLIENT: Final = "The id_token_hint was issued to another client."
NO_CLIENT: Final = "post_logout_redirect_uri needs an id_token_hint, or a client_id."
UNKNOWN_CLIENT: Final = "There is no such client."
UNREGISTERED: Final = "The post_logout_redirect_uri is not registered."


@dataclass(frozen=True, slots=True)
class LogoutRequest:
    """`return_to`: where the user goes afterwards, with the `state`. `session_id`: the one that the client means,
    as it proves by an ID token. `fault`: why it is not to be believed, and the user goes nowhere."""

    client: Client | None = None
    return_to: str | None = None
    session_id: str | None = None
    fault: str | None = None


def read(parameters: Mapping[str, str], clients: Clients, keys: KeySource, issuer: str) -> LogoutRequest:
    """`logout_hint` is for servers that can do more with it; `ui_locales` is read by `web.language`."""
    hint, client_id = None, parameters.get("client_id")
    if "id_token_hint" in parameters:
        hint = id_token_hint.read(parameters["id_token_hint"], keys, issuer)
        if hint is None:
            return LogoutRequest(fault=BAD_HINT)
        # Section 2: where both are there, they must name one client.
        if client_id not in {None, hint.client_id}:
            return LogoutRequest(fault=OTHER_CLIENT)
        client_id = hint.client_id
    client = None if client_id is None else clients.find(client_id)
    if client_id is not None and client is None:
        return LogoutRequest(fault=UNKNOWN_CLIENT)
    uri = parameters.get("post_logout_redirect_uri")
    # Section 3: never to where the client didn't register, character by character.
    if uri is not None and client is None:
        return LogoutRequest(fault=NO_CLIENT)
    if uri is not None and client is not None and uri not in client.metadata.post_logout_redirect_uris:
        return LogoutRequest(client, fault=UNREGISTERED)
    return LogoutRequest(
        client,
        None if uri is None else _with_state(uri, parameters.get("state")),
        None if hint is None else hint.session_id,
    )


def _with_state(uri: str, state: str | None) -> str:
    """Section 3: what came is passed back, and nothing where none came."""
    return uri if state is None else f"{uri}{'&' if '?' in uri else '?'}state={quote(state, safe='')}"
