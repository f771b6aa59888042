"""RFC 7662, and RFC 9701 for signed answers. Never more than `{"active": false}` about a token that is dead,
unknown or somebody else's."""

import time
from typing import Any, Final

from flask import Response, request

from tokenserver.clients.registry import Client
from tokenserver.oauth.endpoints.request import Server, authenticated, json_answer, read_form, uncached
from tokenserver.oauth.errors import InvalidClient
from tokenserver.oauth.grants.refresh_token import is_ended
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.tokens.access_token import sign_jwt
from tokenserver.tokens.refresh_token import PREFIX
from tokenserver.verify.errors import InvalidToken

SIGNED: Final = "application/token-introspection+jwt"
TYP: Final = "token-introspection+jwt"
INSPECTING = "tokens:introspect"
CLAIMS = (
    "iss",
    "sub",
    "aud",
    "client_id",
    "scope",
    "exp",
    "iat",
    "jti",
    "sid",
    "roles",
    "auth_time",
    "acr",
    "amr",
    "act",
)


def view(server: Server) -> Response:
    caller, found = _examine(server, read_form())
    # RFC 9701 section 4: signed, for who accepts that and does not like plain JSON as much.
    if request.accept_mimetypes.best_match(("application/json", SIGNED)) != SIGNED:
        return json_answer(found)
    return _signed(server, caller, found)


def answer(server: Server, form: TokenRequest) -> dict[str, Any]:
    return _examine(server, form)[1]


def _examine(server: Server, form: TokenRequest) -> tuple[Client, dict[str, Any]]:
    """Who asks, and what they may know about the token: as of the one look at the feed that knows both."""
    client = authenticated(server, form)
    # RFC 7662 section 2.1: the caller must be authenticated; a public client only says a name.
    if not client.is_confidential:
        raise InvalidClient(reason="public_client")
    server.client_limits.take("introspection", client)
    token = form.need("token")
    # Section 2.1: token_type_hint may be ignored; the two kinds can't be confused.
    found = (
        _refresh_token(server, client, token) if token.startswith(PREFIX) else _access_token(server, client, token)
    )
    return client, found or {"active": False}


def _signed(server: Server, caller: Client, found: dict[str, Any]) -> Response:
    alg = caller.metadata.introspection_signed_response_alg or server.settings.signing_alg
    # Section 5: no sub and no exp of its own, so that nobody takes it for an access token or an ID token.
    claims = {
        "iss": server.settings.issuer,
        "aud": caller.client_id,
        "iat": int(time.time()),
        "token_introspection": found,
    }
    return uncached(sign_jwt(server.keys.signer(alg), TYP, claims), SIGNED)


def _access_token(server: Server, caller: Client, token: str) -> dict[str, Any] | None:
    try:
        claims = server.active_tokens.any_audience.verify(token)
        holder = server.active_tokens.judge(claims)
    except InvalidToken:
        return None
    if not _may_see(server, caller, claims.client_id, claims.aud):
        return None
    shown = {k: claims.raw[k] for k in CLAIMS if k in claims.raw}
    if claims.raw.get("roles_omitted"):
        shown["roles"] = list(holder.roles)
    return {"active": True, "token_type": "Bearer"} | shown


def _refresh_token(server: Server, caller: Client, token: str) -> dict[str, Any] | None:
    rooms = server.rooms
    presented = rooms.refresh_tokens.parse(token)
    family = rooms.refresh_tokens.find(presented[0]) if presented else None
    if presented is None or family is None or family.client_id != caller.client_id:
        return None
    if is_ended(rooms, family) or not rooms.refresh_tokens.is_live(*presented):
        return None
    found: dict[str, Any] = {
        "active": True,
        "iss": server.settings.issuer,
        "sub": rooms.subjects.of(caller, family.user_id),
        "client_id": family.client_id,
        "exp": family.expires_at // 1000,
        "sid": str(family.session_id),
    }
    return found if family.scope is None else found | {"scope": family.scope}


def _may_see(server: Server, caller: Client, client_id: str, audience: tuple[str, ...]) -> bool:
    """A token is shown to the client that holds it, to the resource that it names, and to clients that an admin
    registered for introspecting tokens of their audience."""
    if caller.client_id == client_id or caller.client_id in audience:
        return True
    return INSPECTING in caller.scope and not set(audience).isdisjoint(server.rooms.issuing.audience_of(caller))
