"""Is this access token good right now, and what does its holder hold? The answer for every entry point:
this server's own routes, introspection, revocation.
"""

import time
from uuid import UUID

from tokenserver.access.rights import Rights
from tokenserver.clients.registry import Client, Clients
from tokenserver.identity.people import People
from tokenserver.oauth.subject import Subjects
from tokenserver.tokens.revocation import Revocation
from tokenserver.verify.access_token import Verifier
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import InvalidToken
from tokenserver.verify.revoked import issued_at_ms
from tokenserver.web.holder import Holder


class ActiveTokens:
    """`verifier` guards this server's own routes; `any_audience` reads tokens for other resources too, which the
    issuer is asked about."""

    def __init__(
        self,
        *,
        verifier: Verifier,
        any_audience: Verifier,
        revocation: Revocation,
        clients: Clients,
        people: People,
        rights: Rights,
        subjects: Subjects,
    ) -> None:
        self.verifier = verifier
        self.any_audience = any_audience
        self._revocation = revocation
        self._clients = clients
        self._people = people
        self._rights = rights
        self._subjects = subjects

    def judge(self, claims: Claims) -> Holder:
        """As of the last `Feed.sync`; no SQL once its rows are cached. Raises InvalidToken."""
        # The verifier allows for other people's clocks; this one is the issuer's own.
        if claims.exp <= time.time():
            raise InvalidToken("expired", description="The access token is expired.")
        client = self._clients.find(claims.client_id)
        user_id = self._user_id(claims, client)
        family_id = claims.raw.get("fam")
        if self._revocation.is_revoked(
            issued_at=issued_at_ms(claims.jti, claims.iat),
            user_id=user_id,
            client_id=claims.client_id,
            session_id=claims.sid,
            family_id=family_id if isinstance(family_id, str) else None,
            token_id=claims.jti,
        ):
            raise InvalidToken("revoked")
        if client is None:
            raise InvalidToken("its client is gone")
        if claims.sid is None or user_id is None:
            own = self._own_scope(claims, client)
            return Holder(claims.sub, claims.client_id, None, None, (), own, claims.scope)
        person = self._people.find(user_id)
        if person is None or not person.is_active:
            raise InvalidToken("its user is gone or disabled")
        held = self._rights.of(user_id)
        return Holder(
            str(user_id), claims.client_id, user_id, _uuid(claims.sid), held.roles, held.permissions, claims.scope
        )

    def _own_scope(self, claims: Claims, client: Client) -> frozenset[str]:
        """What the client that a token stands for may do by itself; after an exchange (RFC 8693) that isn't the one
        that holds it. Raises InvalidToken."""
        subject = client if claims.sub == client.client_id else self._clients.find(claims.sub)
        issued_at = issued_at_ms(claims.jti, claims.iat)
        if subject is None or self._revocation.is_revoked(issued_at=issued_at, client_id=claims.sub):
            raise InvalidToken("its subject is gone")
        return subject.scope if subject.allows("client_credentials") else frozenset()

    def actor(self, claims: Claims) -> str:
        """Whose token it is, for the log: a user's id, or a client's; the `sub` of a client that is gone."""
        try:
            return str(self._user_id(claims, self._clients.find(claims.client_id)) or claims.sub)
        except InvalidToken:
            return claims.sub

    def _user_id(self, claims: Claims, client: Client | None) -> UUID | None:
        """None for a client's own token, and for one whose client is gone. Raises InvalidToken."""
        if claims.sid is None or client is None:
            return None
        try:
            return self._subjects.user_id(client, claims.sub)
        except ValueError:
            raise InvalidToken("sub is no subject") from None


def _uuid(value: str) -> UUID:
    try:
        return UUID(value)
    except ValueError:
        raise InvalidToken("sid is no UUID") from None
