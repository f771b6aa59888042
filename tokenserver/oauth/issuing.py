"""From a granted request to the token response (RFC 6749 section 5.1): the one place that mints."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from tokenserver.clients.registry import Client
from tokenserver.config import Settings
from tokenserver.oauth import scope as scopes
from tokenserver.tokens import access_token, id_token
from tokenserver.tokens.access_token import Signer


class Signers(Protocol):
    def signer(self, alg: str) -> Signer: ...


@dataclass(frozen=True, slots=True)
class UserContext:
    """The sign-in that a token descends from. `family_id` None: no refresh token goes with it."""

    user_id: UUID
    roles: tuple[str, ...]
    session_id: UUID
    family_id: UUID | None
    authenticated_at: int
    amr: Sequence[str]


class Issued(NamedTuple):
    """`response`: RFC 6749 section 5.1, still without a refresh token."""

    response: dict[str, Any]
    roles_omitted: bool = False


class Issuing:
    def __init__(self, settings: Settings, keys: Signers) -> None:
        self._settings = settings
        self._keys = keys

    def audience_of(self, client: Client) -> tuple[str, ...]:
        return client.audience or (self._settings.audience,)

    def for_user(self, client: Client, user: UserContext, scope: Iterable[str], audience: Sequence[str]) -> Issued:
        granted = frozenset(scope)
        signer = self._keys.signer(self._settings.signing_alg)
        minted = access_token.mint(
            signer,
            issuer=self._settings.issuer,
            subject=str(user.user_id),
            audience=audience,
            client_id=client.client_id,
            scope=scopes.to_text(granted),
            lifetime=self._settings.access_token_ttl,
            roles=user.roles,
            session_id=user.session_id,
            family_id=user.family_id,
            authenticated_at=user.authenticated_at,
            amr=user.amr,
        )
        response = self._response(minted.token, granted)
        if "openid" in granted:
            response["id_token"] = id_token.mint(
                signer,
                issuer=self._settings.issuer,
                subject=str(user.user_id),
                client_id=client.client_id,
                lifetime=self._settings.access_token_ttl,
                session_id=user.session_id,
                authenticated_at=user.authenticated_at,
                amr=user.amr,
                access_token=minted.token,
            )
        return Issued(response, minted.roles_omitted)

    def for_client(self, client: Client, scope: Iterable[str]) -> Issued:
        granted = frozenset(scope)
        minted = access_token.mint(
            self._keys.signer(self._settings.signing_alg),
            issuer=self._settings.issuer,
            # RFC 9068 section 2.2: the client itself is the subject
            subject=client.client_id,
            audience=self.audience_of(client),
            client_id=client.client_id,
            scope=scopes.to_text(granted),
            lifetime=self._settings.access_token_ttl,
        )
        return Issued(self._response(minted.token, granted))

    def _response(self, token: str, granted: frozenset[str]) -> dict[str, Any]:
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self._settings.access_token_ttl,
            "scope": scopes.to_text(granted),
        }
