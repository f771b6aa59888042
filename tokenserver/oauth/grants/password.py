"""RFC 6749 section 4.3. RFC 9700 section 2.4 forbids it; it is off unless a client registered for it
(docs/adr/0006-password-grant.md).
"""

from datetime import datetime
from typing import Any, Final

from tokenserver.clients.registry import Client
from tokenserver.identity.login import Refusal
from tokenserver.oauth import resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidGrant
from tokenserver.oauth.grants.request import Collaborators, TokenRequest, event_of
from tokenserver.oauth.issuing import UserContext
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import Session
from tokenserver.tokens.refresh_family import Family
from tokenserver.tokens.sessions import SignIn
from tokenserver.web.request_context import current

# What the client can do something about, and nothing that who doesn't know the password learns.
SENTENCES: Final = {
    Refusal.SECOND_FACTOR_REQUIRED: "A second factor is required: send otp too.",
    Refusal.INVALID_OTP: "The second factor is wrong.",
}


def grant(request: TokenRequest, client: Client, rooms: Collaborators) -> dict[str, Any]:
    """Reason of the InvalidGrant: `invalid_credentials`, or one of SENTENCES and `account_disabled` after the right
    password. `otp`: of an account with a second factor."""
    asked = scopes.parse(request.parameters.get("scope"))
    audience = rooms.issuing.audience_of(client)
    # RFC 8707 section 2.2: of this access token; the family keeps all that the client may ask for.
    chosen = resource.chosen(audience, request.parameters.get("resource"))
    otp = request.parameters.get("otp")
    proof = rooms.login.authenticate(
        request.need("username"),
        request.need("password"),
        complete=lambda proof: rooms.second_factors.complete(proof, otp),
    )
    if isinstance(proof, Refusal):
        raise InvalidGrant(SENTENCES.get(proof), reason=proof.value)
    user = proof.user
    current().actor = str(user.id)
    held = rooms.rights.of(user.id)
    granted = scopes.for_user(client, asked, held.permissions)
    sign_in = SignIn(user.id, client.client_id, proof.amr, request.address, request.user_agent)

    def start(tx: Transaction) -> tuple[Session, tuple[Family, datetime] | None]:
        if not proof.holds(tx):
            raise InvalidGrant(reason=Refusal.INVALID_CREDENTIALS.value)
        rooms.login.meet(tx, user)
        session = rooms.sessions.start(tx, sign_in)
        if not client.allows("refresh_token"):
            return session, None
        # A default scope is remembered as "whatever the user holds": new rights reach the next token.
        stored = None if asked is None and client.first_party else scopes.to_text(granted)
        family = rooms.sessions.start_family(
            tx, session, client_id=client.client_id, scope=stored, audience=audience
        )
        return session, family

    session, family = rooms.feed.database.write(start)
    context = UserContext(
        user_id=user.id,
        roles=held.roles,
        session_id=session.id,
        family_id=family[0].id if family else None,
        authenticated_at=int(session.authenticated_at.timestamp()),
        amr=session.amr,
    )
    issued = rooms.issuing.for_user(client, context, granted, chosen)
    refresh_token = {"refresh_token": rooms.refresh_tokens.publish(*family)} if family else {}
    rooms.trail.append(event_of(rooms, "password", issued, target=user.id, session=str(session.id)))
    return issued.response | refresh_token
