"""The authorization request (RFC 6749 section 4.1.1, OIDC Core section 3.1.2.1), checked from the outside in: first
who asks and where the answer may go, then everything whose refusal may travel there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokenserver.clients.metadata import RESPONSE_TYPES
from tokenserver.clients.registry import Client, Clients
from tokenserver.oauth import id_token_hint, pkce, requested_claims, resource
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.errors import (
    InvalidRequest,
    OAuthError,
    RegistrationNotSupported,
    UnauthorizedClient,
    UnsupportedResponseType,
)
from tokenserver.oauth.id_token_hint import Hint
from tokenserver.oauth.issuing import Issuing
from tokenserver.oauth.redirect_uri import is_registered
from tokenserver.oauth.request_object import RequestObjects
from tokenserver.oauth.requested_claims import RequestedClaims
from tokenserver.oauth.response_modes import RESPONSE_MODES, Target, default_mode
from tokenserver.verify.jwks import KeySource

PROMPTS: Final = ("none", "login", "consent", "select_account")
MAX_AGE_DIGITS: Final = 9
# Longer ones are for no library of the field, and every one of them has to be kept and sent back.
MAX_STATE: Final = 4096


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """`parameters`: as they count, those of a request object in their place. `scope` None: not asked for.
    `audience`: the resources that tokens are for."""

    client: Client
    parameters: Mapping[str, str]
    target: Target
    response_type: frozenset[str]
    scope: frozenset[str] | None
    audience: tuple[str, ...]
    nonce: str | None
    code_challenge: str | None
    prompt: frozenset[str]
    max_age: int | None
    hint: Hint | None
    claims: RequestedClaims
    acr_values: tuple[str, ...]

    @property
    def is_openid(self) -> bool:
        return self.scope is not None and "openid" in self.scope


class Answered(Exception):
    """A refusal that goes to the client, at `target`."""

    def __init__(self, error: OAuthError, target: Target, client: Client) -> None:
        self.error = error
        self.target = target
        self.client = client
        super().__init__(error.error)


class AuthorizationRequests:
    def __init__(
        self,
        *,
        clients: Clients,
        request_objects: RequestObjects,
        issuing: Issuing,
        keys: KeySource,
        issuer: str,
    ) -> None:
        self._clients = clients
        self._request_objects = request_objects
        self._issuing = issuing
        self._keys = keys
        self._issuer = issuer

    def read(self, sent: Mapping[str, str]) -> AuthorizationRequest:
        """A request as it came: each parameter once. Raises OAuthError, for a page; Answered."""
        client = self._client(sent)
        try:
            parameters = self._request_objects.applied(client, sent)
        except OAuthError as error:
            # Where the plain parameters say who asks and where to answer, the client is told.
            raise Answered(error, _target(client, sent), client) from None
        return self.check(client, parameters)

    def again(self, parameters: Mapping[str, str]) -> AuthorizationRequest:
        """One that was read before, from its `parameters`: the client may have changed meanwhile."""
        return self.check(self._client(parameters), parameters)

    def _client(self, parameters: Mapping[str, str]) -> Client:
        # RFC 6749 section 4.1.2.1: without a known client nobody is sent anywhere.
        client = self._clients.find(parameters.get("client_id", ""))
        if client is None:
            raise InvalidRequest("The client_id is missing or unknown.", reason="unknown_client")
        return client

    def check(self, client: Client, parameters: Mapping[str, str]) -> AuthorizationRequest:
        target = _target(client, parameters)
        try:
            return self._checked(client, parameters, target)
        except OAuthError as error:
            raise Answered(error, target, client) from None

    def _checked(self, client: Client, parameters: Mapping[str, str], target: Target) -> AuthorizationRequest:
        response_type = _response_type(client, parameters)
        if (mode := parameters.get("response_mode")) is not None and mode != target.response_mode:
            raise InvalidRequest("This response_mode is unknown or not for this response_type.")
        if "registration" in parameters:
            raise RegistrationNotSupported
        if len(parameters.get("state", "")) > MAX_STATE:
            raise InvalidRequest("The state is too long.")
        scope = scopes.parse(parameters.get("scope"))
        nonce = parameters.get("nonce")
        if "id_token" in response_type:
            if scope is None or "openid" not in scope:
                raise InvalidRequest("An id_token needs the scope openid.")
            # OIDC Core sections 3.2.2.1 and 3.3.2.11: else nothing ties the ID token to the request.
            if nonce is None:
                raise InvalidRequest("The nonce is missing.")
        return AuthorizationRequest(
            client=client,
            parameters=parameters,
            target=target,
            response_type=response_type,
            scope=scope,
            audience=resource.chosen(self._issuing.audience_of(client), parameters.get("resource")),
            nonce=nonce,
            code_challenge=pkce.challenge_of(client, parameters) if "code" in response_type else None,
            prompt=_prompt(parameters),
            max_age=_max_age(client, parameters),
            hint=self._hint(client, parameters),
            claims=requested_claims.parse(parameters.get("claims"), client),
            acr_values=tuple(parameters.get("acr_values", "").split()) or tuple(client.metadata.default_acr_values),
        )

    def _hint(self, client: Client, parameters: Mapping[str, str]) -> Hint | None:
        token = parameters.get("id_token_hint")
        if token is None:
            return None
        hint = id_token_hint.read(token, self._keys, self._issuer)
        # OIDC Core section 3.1.2.1: issued here; and to this client, or one could ask who somebody else's user is.
        if hint is None or hint.client_id != client.client_id:
            raise InvalidRequest("The id_token_hint is not an ID token of this server for this client.")
        return hint


def _target(client: Client, parameters: Mapping[str, str]) -> Target:
    """Raises InvalidRequest, for a page: no address is trusted that isn't registered (RFC 6749 section 4.1.2.1)."""
    registered, given = client.metadata.redirect_uris, parameters.get("redirect_uri")
    is_openid = "openid" in parameters.get("scope", "").split(" ")
    if given is None:
        # OIDC Core section 3.1.2.1: REQUIRED. RFC 6749 section 3.1.2.3: needless where one alone is registered.
        if is_openid or len(registered) != 1:
            raise InvalidRequest("The redirect_uri is missing.")
        given = registered[0]
    elif not is_registered(registered, given):
        raise InvalidRequest("The redirect_uri is not registered for this client.", reason="redirect_uri")
    words = " ".join(sorted(parameters.get("response_type", "").split()))
    default = default_mode(words if words in RESPONSE_TYPES else "")
    wanted = parameters.get("response_mode", default)
    is_usable = wanted in RESPONSE_MODES and not (wanted == "query" and default == "fragment")
    return Target(given, wanted if is_usable else default, parameters.get("state"))


def _response_type(client: Client, parameters: Mapping[str, str]) -> frozenset[str]:
    sent = parameters.get("response_type")
    if sent is None:
        raise InvalidRequest("The response_type is missing.")
    words = sent.split(" ")
    # RFC 6749 section 3.1.1: the order of the words doesn't matter.
    name = " ".join(sorted(words))
    if name not in RESPONSE_TYPES:
        raise UnsupportedResponseType
    if name not in client.response_types or not RESPONSE_TYPES[name] <= client.grant_types:
        raise UnauthorizedClient("This client may not use this response_type.")
    return frozenset(words)


def _prompt(parameters: Mapping[str, str]) -> frozenset[str]:
    prompt = frozenset(parameters.get("prompt", "").split(" ")) - {""}
    if not prompt <= set(PROMPTS):
        raise InvalidRequest("The prompt holds an unknown value.")
    # OIDC Core section 3.1.2.1: none with any other value is an error.
    if "none" in prompt and len(prompt) > 1:
        raise InvalidRequest("The prompt none stands alone.")
    return prompt


def _max_age(client: Client, parameters: Mapping[str, str]) -> int | None:
    text = parameters.get("max_age")
    if text is None:
        return client.metadata.default_max_age
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_AGE_DIGITS):
        raise InvalidRequest("The max_age must be a whole number of seconds.")
    return int(text)
