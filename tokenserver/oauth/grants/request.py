"""What a grant gets: a request of plain values, and the rooms below that it works with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from tokenserver.access.rights import Rights
from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.identity.login import Login
from tokenserver.identity.people import People
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.oauth.active_token import ActiveTokens
from tokenserver.oauth.device import Devices
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.issuing import Issued, Issuing
from tokenserver.oauth.subject import Subjects
from tokenserver.signals import metrics
from tokenserver.storage.feed import Feed, Known
from tokenserver.tokens.authorization_code import AuthorizationCodes
from tokenserver.tokens.refresh_token import RefreshTokens
from tokenserver.tokens.revocation import Revocation
from tokenserver.tokens.sessions import Sessions


class TokenRequest(NamedTuple):
    """`parameters`: each once, none empty. `authorization`: the header as it came. `path`: of the endpoint.

    `known`: the state of the feed when the pipeline began to look at clients, people and rights.
    """

    parameters: Mapping[str, str]
    authorization: str | None = None
    address: str | None = None
    user_agent: str | None = None
    path: str = ""
    known: Known = ()

    def knowing(self, known: Known) -> "TokenRequest":
        return TokenRequest(self.parameters, self.authorization, self.address, self.user_agent, self.path, known)

    def need(self, name: str) -> str:
        """Raises InvalidRequest when it is missing."""
        value = self.parameters.get(name)
        if value is None:
            raise InvalidRequest(f"The parameter {name} is missing.")
        return value


@dataclass(frozen=True, slots=True)
class Collaborators:
    feed: Feed
    people: People
    login: Login
    second_factors: SecondFactors
    rights: Rights
    sessions: Sessions
    codes: AuthorizationCodes
    refresh_tokens: RefreshTokens
    revocation: Revocation
    subjects: Subjects
    issuing: Issuing
    trail: Trail
    devices: Devices
    active_tokens: ActiveTokens


class FeedMoved(Exception):
    """Nothing was spent; what this process knew was out of date. The pipeline starts over."""


def event_of(rooms: Collaborators, grant_type: str, issued: Issued, *, target: UUID | str, **details: str) -> bytes:
    """The event of a token that is about to go out. The token is no part of it; its scope is."""
    told = {"grant_type": grant_type, "scope": issued.response["scope"], **details}
    if issued.roles_omitted:
        told["roles_omitted"] = True
        metrics.tokens_without_roles.count()
    return rooms.trail.describe(Event.TOKEN_ISSUED, target=target, details=told)
