"""From a granted request to the token response (RFC 6749 section 5.1): the one place that mints."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from tokenserver.clients.keys import ClientKeys, NoKey
from tokenserver.clients.registry import Client
from tokenserver.config import Settings
from tokenserver.identity.claims import claims_of
from tokenserver.identity.people import People
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.subject import Subjects
from tokenserver.tokens import access_token, id_token
from tokenserver.tokens.access_token import Minted, Signer


class Signers(Protocol):
    def signer(self, alg: str) -> Signer: ...


@dataclass(frozen=True, slots=True)
class UserContext:
    """The sign-in that a token descends from. `family_id` None: no refresh token goes with it.

    `claims`: asked for by name, as {"userinfo": [names], "id_token": [names]}. `browser_session_id`: what the ID
    token calls the session, where the family lives in one of its own.
    """

    user_id: UUID
    roles: tuple[str, ...]
    session_id: UUID
    family_id: UUID | None
    authenticated_at: int
    amr: Sequence[str]
    claims: Mapping[str, Sequence[str]] | None = None
    browser_session_id: UUID | None = None

    def names(self, place: str) -> Sequence[str]:
        return () if self.claims is None else self.claims.get(place, ())


class Issued(NamedTuple):
    """`response`: RFC 6749 section 5.1, still without a refresh token."""

    response: dict[str, Any]
    roles_omitted: bool = False


class Issuing:
    def __init__(
        self, settings: Settings, keys: Signers, people: People, subjects: Subjects, client_keys: ClientKeys
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._people = people
        self._subjects = subjects
        self._client_keys = client_keys

    def audience_of(self, client: Client) -> tuple[str, ...]:
        return client.audience or (self._settings.audience,)

    def for_user(
        self,
        client: Client,
        user: UserContext,
        scope: Iterable[str],
        audience: Sequence[str],
        *,
        nonce: str | None = None,
    ) -> Issued:
        """The token response, with an ID token where `openid` is granted. `nonce`: of the request that led here."""
        granted = frozenset(scope)
        minted = self._access_token(client, user, granted, audience)
        response = self._response(minted.token, granted)
        if "openid" in granted:
            response["id_token"] = self._id_token(
                client, user, user.names("id_token"), nonce=nonce, access_token=minted.token
            )
        return Issued(response, minted.roles_omitted)

    def front_channel(
        self,
        client: Client,
        user: UserContext,
        scope: Iterable[str],
        audience: Sequence[str],
        *,
        response_type: Collection[str],
        nonce: str | None,
        code: str | None,
    ) -> dict[str, Any]:
        """What goes into an authorization response beside `code`, `state` and `iss` (OpenID Connect Core sections
        3.2.2.5 and 3.3.2.5), for the words of `response_type`."""
        granted = frozenset(scope)
        response: dict[str, Any] = {}
        if "token" in response_type:
            response = self._response(self._access_token(client, user, granted, audience).token, granted)
        if "id_token" in response_type:
            # Section 5.4: who gets no access token, now or for the code, is told the scopes' claims here.
            told = granted if set(response_type) == {"id_token"} else ()
            response["id_token"] = self._id_token(
                client,
                user,
                user.names("id_token"),
                told,
                nonce=nonce,
                access_token=response.get("access_token"),
                code=code,
            )
        return response

    def for_client(self, client: Client, scope: Iterable[str], audience: Sequence[str] | None = None) -> Issued:
        granted = frozenset(scope)
        audience = self.audience_of(client) if audience is None else audience
        # RFC 9068 section 2.2: the client itself is the subject
        minted = self._client_token(client, client.client_id, granted, audience)
        return Issued(self._response(minted.token, granted))

    def exchanged(
        self,
        client: Client,
        subject: UserContext | str,
        scope: Iterable[str],
        audience: Sequence[str],
        *,
        act: Mapping[str, Any] | None,
        expires_by: int,
    ) -> Issued:
        """Still without `issued_token_type` (RFC 8693 section 2.2.1). `client`: who asks. `subject`: a user, or the
        id of a client that is nobody's. `act`: who acts for it. `expires_by`: the end of the token presented."""
        granted = frozenset(scope)
        if isinstance(subject, UserContext):
            minted = self._access_token(client, subject, granted, audience, act=act, expires_by=expires_by)
        else:
            minted = self._client_token(client, subject, granted, audience, act=act, expires_by=expires_by)
        response = self._response(minted.token, granted)
        response["expires_in"] = max(1, min(response["expires_in"], expires_by - int(time.time())))
        return Issued(response, minted.roles_omitted)

    def _client_token(
        self,
        client: Client,
        subject: str,
        granted: frozenset[str],
        audience: Sequence[str],
        *,
        act: Mapping[str, Any] | None = None,
        expires_by: int | None = None,
    ) -> Minted:
        return access_token.mint(
            self._access_token_signer(client),
            issuer=self._settings.issuer,
            subject=subject,
            audience=audience,
            client_id=client.client_id,
            scope=scopes.to_text(granted),
            lifetime=self._settings.access_token_ttl,
            act=act,
            expires_by=expires_by,
        )

    def _access_token(
        self,
        client: Client,
        user: UserContext,
        granted: frozenset[str],
        audience: Sequence[str],
        *,
        act: Mapping[str, Any] | None = None,
        expires_by: int | None = None,
    ) -> Minted:
        return access_token.mint(
            self._access_token_signer(client),
            issuer=self._settings.issuer,
            subject=self._subjects.of(client, user.user_id),
            audience=audience,
            client_id=client.client_id,
            scope=scopes.to_text(granted),
            lifetime=self._settings.access_token_ttl,
            roles=user.roles,
            session_id=user.session_id,
            family_id=user.family_id,
            authenticated_at=user.authenticated_at,
            amr=user.amr,
            userinfo_claims=user.names("userinfo"),
            act=act,
            expires_by=expires_by,
        )

    def _id_token(
        self,
        client: Client,
        user: UserContext,
        names: Collection[str],
        told: Collection[str] = (),
        *,
        nonce: str | None,
        access_token: str | None,
        code: str | None = None,
    ) -> str:
        """`told`: the scopes whose claims it holds, beside those of `names`."""
        alg = client.metadata.id_token_signed_response_alg or self._settings.signing_alg
        signed = id_token.mint(
            self._keys.signer(alg),
            issuer=self._settings.issuer,
            subject=self._subjects.of(client, user.user_id),
            client_id=client.client_id,
            lifetime=self._settings.access_token_ttl,
            session_id=user.browser_session_id or user.session_id,
            authenticated_at=user.authenticated_at,
            amr=user.amr,
            nonce=nonce,
            access_token=access_token,
            code=code,
            about=self._about(user.user_id, told, names),
        )
        return self._encrypted(client, signed)

    def _encrypted(self, client: Client, signed: str) -> str:
        """For a client that registered for it (OIDC Core section 2): never a plain one instead."""
        metadata = client.metadata
        alg, enc = metadata.id_token_encrypted_response_alg, metadata.id_token_encrypted_response_enc
        if alg is None or enc is None:
            return signed
        try:
            return id_token.encrypt(signed, self._client_keys.encryption_key(client, alg), alg=alg, enc=enc)
        except NoKey as error:
            raise InvalidRequest(
                "The client has no key that its ID token can be encrypted with.", reason=str(error)[:60]
            ) from None

    def _about(self, user_id: UUID, told: Collection[str], names: Collection[str]) -> Mapping[str, Any]:
        person = self._people.find(user_id) if told or names else None
        return MappingProxyType({}) if person is None else claims_of(person, told, names)

    def _access_token_signer(self, client: Client) -> Signer:
        return self._keys.signer(client.metadata.access_token_signed_response_alg or self._settings.signing_alg)

    def _response(self, token: str, granted: frozenset[str]) -> dict[str, Any]:
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self._settings.access_token_ttl,
            "scope": scopes.to_text(granted),
        }
