"""The token endpoint's steps, for every grant and whichever door: 1 shape, 2 client, 3 grant, 4 response."""

from typing import Any, Final

from tokenserver.clients.registry import FIRST_PARTY, Client
from tokenserver.errors import StoreUnavailable
from tokenserver.oauth.client_authentication import ClientAuthentication
from tokenserver.oauth.client_limits import ClientLimits
from tokenserver.oauth.errors import InvalidClient, OAuthError, UnauthorizedClient, UnsupportedGrantType
from tokenserver.oauth.grants import GRANTS, Grant
from tokenserver.oauth.grants.request import Collaborators, FeedMoved, TokenRequest
from tokenserver.signals import metrics
from tokenserver.web.request_context import current

MAX_TRIES: Final = 8


class Pipeline:
    def __init__(self, authentication: ClientAuthentication, rooms: Collaborators, limits: ClientLimits) -> None:
        self._authentication = authentication
        self._rooms = rooms
        self._limits = limits

    def token(self, request: TokenRequest) -> dict[str, Any]:
        """The token response (RFC 6749 section 5.1). Raises OAuthError, Unavailable."""
        # 1. shape: a grant_type that is there and known
        grant_type = request.need("grant_type")
        grant = GRANTS.get(grant_type)
        if grant is None:
            raise UnsupportedGrantType
        current().grant_type = grant_type
        return self._on_current_knowledge(grant, request)

    def first_party(self, grant_type: str, request: TokenRequest) -> dict[str, Any]:
        """The same for the built-in client, which the REST door stands for."""
        parameters = {**request.parameters, "grant_type": grant_type, "client_id": FIRST_PARTY}
        return self.token(TokenRequest(parameters, None, request.address, request.user_agent))

    def _on_current_knowledge(self, grant: Grant, request: TokenRequest) -> dict[str, Any]:
        """Clients, people and rights come from memory. They are as of now either because the feed was asked
        before, or because the grant's own round trip says so; then a refusal is checked before it is given."""
        feed = self._rooms.feed
        if not grant.is_optimistic or not feed.is_informed:
            feed.sync()
        if not grant.is_optimistic:
            return self._run(grant, request)
        for _ in range(MAX_TRIES):
            known = feed.known()
            try:
                return self._run(grant, request.knowing(known))
            except FeedMoved:
                continue
            except OAuthError as error:
                if error.is_certain:
                    raise
                feed.sync()
                if known == feed.known():
                    raise
        raise StoreUnavailable("redis", "the feed moves faster than this request")

    def _run(self, grant: Grant, request: TokenRequest) -> dict[str, Any]:
        # 2. client
        client = self._authentication.authenticate(request.authorization, request.parameters, request.path)
        current().client_id = client.client_id
        self._limits.take("token", client)
        # 3. grant
        grant_type = request.parameters["grant_type"]
        self._check_grant(grant, client, grant_type)
        # 4. response
        response = grant.run(request, client, self._rooms)
        metrics.tokens_issued.count(grant_type)
        return response

    @staticmethod
    def _check_grant(grant: Grant, client: Client, grant_type: str) -> None:
        if grant.confidential and not client.is_confidential:
            # RFC 6749 section 4.4: confidential clients only
            raise InvalidClient(reason="public_client")
        if not client.allows(grant_type):
            raise UnauthorizedClient
