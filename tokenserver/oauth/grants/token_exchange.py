"""RFC 8693: a service that was called with a token gets one of its own, for what it calls in turn.

Whose tokens a client may exchange, and how, is registered with it (`Metadata.token_exchange`). The new token stands
for the same subject, dies with the same session or family, never lives longer, and never does more.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from tokenserver.clients.registry import Client
from tokenserver.oauth import resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidRequest, InvalidScope, UnauthorizedClient
from tokenserver.oauth.grants.request import Collaborators, FeedMoved, TokenRequest, event_of
from tokenserver.oauth.issuing import UserContext
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import InvalidToken
from tokenserver.web.holder import Holder
from tokenserver.web.request_context import current

# Section 3. Every access token of this server is a JWT, so the two words name the same.
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
TOKEN_TYPES: Final = frozenset({ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt"})
EVERY_CLIENT: Final = "*"
MAX_ACTORS: Final = 5
UNACCEPTABLE: Final = "The subject token or the actor token can not be accepted."


class Presented(NamedTuple):
    """A good access token, and who holds it now."""

    claims: Claims
    holder: Holder


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    policy = client.metadata.token_exchange
    if policy is None:
        raise UnauthorizedClient(reason="no_policy")
    requested_type = request.parameters.get("requested_token_type", ACCESS_TOKEN)
    if requested_type not in TOKEN_TYPES:
        raise InvalidRequest("Only access tokens are issued.")
    subject = _presented(request, "subject_token", rooms)
    actor = _presented(request, "actor_token", rooms) if _has_actor(request) else None
    current().actor = client.client_id if actor is None else actor.holder.subject
    _check_policy(policy, client, subject, actor)
    act = _act(client, subject, actor)

    wanted = [request.parameters[name] for name in ("resource", "audience") if name in request.parameters]
    audience = resource.chosen(rooms.issuing.audience_of(client), " ".join(wanted) or None)
    issued = rooms.issuing.exchanged(
        client,
        _context(subject) or subject.claims.sub,
        _scope(client, subject, scopes.parse(request.parameters.get("scope"))),
        audience,
        act=act,
        expires_by=int(min(each.claims.exp for each in (subject, actor) if each is not None)),
    )
    event = event_of(
        rooms,
        request.need("grant_type"),
        issued,
        target=subject.holder.subject,
        subject_client=subject.claims.client_id,
        exchange="impersonation" if actor is None else "delegation",
    )
    if not rooms.trail.witness(request.known, event):
        raise FeedMoved
    return issued.response | {"issued_token_type": requested_type}


def _has_actor(request: TokenRequest) -> bool:
    if "actor_token_type" in request.parameters and "actor_token" not in request.parameters:
        # Section 2.1: MUST NOT be included without the token
        raise InvalidRequest("The parameter actor_token is missing.")
    return "actor_token" in request.parameters


def _presented(request: TokenRequest, name: str, rooms: Collaborators) -> Presented:
    """By the rule for every access token, for whichever resource."""
    token = request.need(name)
    if request.need(f"{name}_type") not in TOKEN_TYPES:
        raise InvalidRequest("Only access tokens can be exchanged.")
    try:
        claims = rooms.active_tokens.any_audience.verify(token)
        return Presented(claims, rooms.active_tokens.judge(claims))
    except InvalidToken as error:
        raise _unacceptable(f"{name}: {error}") from None


def _check_policy(policy: Mapping[str, Any], client: Client, subject: Presented, actor: Presented | None) -> None:
    if policy.get("impersonation" if actor is None else "delegation") is not True:
        raise UnauthorizedClient(reason="impersonation" if actor is None else "delegation")
    owner = subject.claims.client_id
    if {owner, EVERY_CLIENT}.isdisjoint(policy.get("clients", ())):
        raise _unacceptable("the policy doesn't name its client")
    # A token that was meant for others is a stolen one.
    if client.client_id not in {owner, *subject.claims.aud}:
        raise _unacceptable("not meant for this client")
    if actor is not None and (actor.claims.client_id != client.client_id or "act" in actor.claims.raw):
        raise _unacceptable("the actor token isn't the caller's own")
    may_act = subject.claims.raw.get("may_act")
    if may_act is not None:
        acting = client.client_id if actor is None else actor.claims.sub
        known = {"iss": subject.claims.iss, "sub": acting, "client_id": client.client_id}
        # Section 4.4: the members together name who may act.
        if not isinstance(may_act, dict) or not may_act or not may_act.items() <= known.items():
            raise _unacceptable("may_act names somebody else")


def _act(client: Client, subject: Presented, actor: Presented | None) -> Mapping[str, Any] | None:
    """Section 4.1: who acts, and within it who acted before. An impersonation hides nobody who acted before."""
    before = subject.claims.raw.get("act")
    if actor is None:
        return before
    act = {"sub": actor.claims.sub, "client_id": client.client_id}
    if before is None:
        return act
    depth, inner = 1, before
    while isinstance(inner, dict):
        depth, inner = depth + 1, inner.get("act")
    if depth > MAX_ACTORS:
        raise _unacceptable("too many actors")
    return act | {"act": before}


def _context(subject: Presented) -> UserContext | None:
    """None for a client's own token."""
    claims, holder = subject
    if holder.user_id is None or holder.session_id is None:
        return None
    family_id = claims.raw.get("fam")
    return UserContext(
        user_id=holder.user_id,
        roles=holder.roles,
        session_id=holder.session_id,
        family_id=None if family_id is None else UUID(family_id),
        authenticated_at=int(claims.auth_time or 0),
        amr=claims.amr,
    )


def _scope(client: Client, subject: Presented, asked: frozenset[str] | None) -> frozenset[str]:
    """What the subject token covers, its holder still holds, and this client may ask for."""
    allowed = scopes.narrowed(subject.claims.scope, subject.holder.permissions)
    if not client.first_party:
        allowed &= client.scope
    if asked is None:
        return allowed
    if not asked <= allowed:
        raise InvalidScope
    return asked


def _unacceptable(reason: str) -> InvalidRequest:
    # Section 2.2.2: invalid_request for whatever is wrong with a token, or with the policy about it
    return InvalidRequest(UNACCEPTABLE, reason=reason)
