"""RFC 6749 section 4.1.3. Everything is checked and signed first; the code is spent last, with what it is spent
for.
"""

from datetime import datetime
from typing import Any

from tokenserver.clients.registry import Client
from tokenserver.oauth import pkce, resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidGrant
from tokenserver.oauth.grants.request import Collaborators, TokenRequest, event_of
from tokenserver.oauth.issuing import UserContext
from tokenserver.signals import metrics
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.models import AuthorizationCode, Session
from tokenserver.tokens.refresh_family import Family
from tokenserver.web.request_context import current


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    code = rooms.codes.find(request.need("code"))
    _check(code, client, request)
    assert code is not None  # noqa: S101 - for the type checker
    current().actor = str(code.user_id)
    if code.used_at is not None:
        _refuse_replay(code, rooms)
    # RFC 6749 section 4.1.2: it must expire shortly after it was issued.
    if code.expires_at <= utc_now():
        raise InvalidGrant(reason="expired")
    if not _is_live(code, rooms):
        raise InvalidGrant(reason="ended")
    held = rooms.rights.of(code.user_id)
    granted = scopes.narrowed(code.scope.split(), held.permissions)
    audience = resource.chosen(code.audience, request.parameters.get("resource"))
    is_offline = "offline_access" in granted
    user = UserContext(
        user_id=code.user_id,
        roles=held.roles,
        # A session of its own, which outlives the browser's, goes by the id of its one family.
        session_id=code.family_id if is_offline else code.session_id,
        family_id=code.family_id,
        authenticated_at=int(code.authenticated_at.timestamp()),
        amr=code.amr,
        claims=code.claims,
        browser_session_id=code.session_id,
    )
    issued = rooms.issuing.for_user(client, user, granted, audience, nonce=code.nonce)

    def spend(tx: Transaction) -> tuple[bool, tuple[Family, datetime] | None]:
        if not rooms.codes.spend(tx, code):
            return False, None
        session = tx.get(Session, code.session_id, with_for_update={"read": True})
        if session is None or session.ended_at is not None:
            raise InvalidGrant(reason="ended")
        if not client.allows("refresh_token"):
            return True, None
        if is_offline:
            session = rooms.sessions.start_offline(
                tx,
                session,
                session_id=code.family_id,
                client_id=client.client_id,
                authenticated_at=code.authenticated_at,
                amr=code.amr,
            )
        return True, rooms.sessions.start_family(
            tx,
            session,
            client_id=client.client_id,
            scope=code.scope,
            audience=code.audience,
            family_id=code.family_id,
            authenticated_at=code.authenticated_at,
            amr=code.amr,
            claims=code.claims,
        )

    is_first, family = rooms.feed.database.write(spend)
    if not is_first:
        _refuse_replay(code, rooms)
    refresh_token = {"refresh_token": rooms.refresh_tokens.publish(*family)} if family else {}
    event = event_of(rooms, "authorization_code", issued, target=code.user_id, session=str(user.session_id))
    rooms.trail.append(event)
    return issued.response | refresh_token


def _check(code: AuthorizationCode | None, client: Client, request: TokenRequest) -> None:
    """Raises InvalidGrant, and nothing is spent: whoever lacks one of these can't use up somebody else's code."""
    # RFC 6749 section 4.1.3: issued to this client, and with this redirect_uri.
    if code is None or code.client_id != client.client_id:
        raise InvalidGrant(reason="unknown_code" if code is None else "wrong_client")
    given = request.parameters.get("redirect_uri")
    if given != code.redirect_uri and not (code.redirect_uri is None and given in client.metadata.redirect_uris):
        raise InvalidGrant(reason="wrong_redirect_uri")
    pkce.verify(code.code_challenge, request.parameters.get("code_verifier"))


def _refuse_replay(code: AuthorizationCode, rooms: Collaborators) -> None:
    """Who knows all that a code is bound to uses it again: the tokens that it led to end."""
    rooms.codes.end_replayed(code)
    metrics.replays_detected.count("authorization_code")
    raise InvalidGrant(reason="replayed")


def _is_live(code: AuthorizationCode, rooms: Collaborators) -> bool:
    """By the same cutoffs as access tokens; and its user must be there and active."""
    person = rooms.people.find(code.user_id)
    return (
        person is not None
        and person.is_active
        and not rooms.revocation.is_revoked(
            issued_at=int(code.authenticated_at.timestamp() * 1000),
            user_id=code.user_id,
            client_id=code.client_id,
            session_id=code.session_id,
            family_id=code.family_id,
        )
    )
