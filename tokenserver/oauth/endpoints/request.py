"""From Flask to plain values and back, for every endpoint that takes a form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from tokenserver.clients.initial_access_token import InitialAccessTokens
from tokenserver.clients.keys import ClientKeys
from tokenserver.clients.registry import Client, Clients
from tokenserver.compact_json import to_json
from tokenserver.config import Settings
from tokenserver.oauth.active_token import ActiveTokens
from tokenserver.oauth.admission import Admission
from tokenserver.oauth.authorization import Authorization
from tokenserver.oauth.authorization_request import AuthorizationRequests
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.client_authentication import ClientAuthentication
from tokenserver.oauth.client_limits import ClientLimits
from tokenserver.oauth.errors import BodyTooLarge
from tokenserver.oauth.grants.request import Collaborators, TokenRequest
from tokenserver.oauth.interaction import Interactions
from tokenserver.oauth.parameters import parse_form, parse_query
from tokenserver.oauth.pipeline import Pipeline
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.tokens.revocation_list import SignedList
from tokenserver.web.cookies import Cookies
from tokenserver.web.fetch import Fetcher
from tokenserver.web.rate_limit import RateLimits
from tokenserver.web.request_context import current
from tokenserver.web.wire import body_bytes


@dataclass(frozen=True)
class Server:
    """What the endpoints work with. `endpoint_paths`: metadata key → path. `show`: renders a page, which is a room
    above this one."""

    settings: Settings
    keys: KeyRing
    clients: Clients
    initial_access_tokens: InitialAccessTokens
    limits: RateLimits
    client_keys: ClientKeys
    client_authentication: ClientAuthentication
    client_limits: ClientLimits
    fetcher: Fetcher
    rooms: Collaborators
    pipeline: Pipeline
    active_tokens: ActiveTokens
    browser_sessions: BrowserSessions
    interactions: Interactions
    cookies: Cookies
    authorization_requests: AuthorizationRequests
    authorization: Authorization
    admission: Admission
    revocation_list: SignedList
    endpoint_paths: Mapping[str, str]
    show: Callable[..., Response]


def read_form(*, with_query: bool = False) -> TokenRequest:
    """`with_query`: whether there may be a query, which is not read. Raises InvalidRequest, BodyTooLarge."""
    try:
        body = body_bytes()
    except RequestEntityTooLarge:
        raise BodyTooLarge from None
    query = "" if with_query else request.query_string.decode("latin-1")
    return form_of(request.environ, body, query, request.path)


def form_of(environ: Mapping[str, Any], body: bytes, query: str, path: str) -> TokenRequest:
    """The same of a WSGI environment, to whatever it was read from. Raises InvalidRequest."""
    parameters = parse_form(body, environ.get("CONTENT_TYPE", ""), query)
    context = current()
    return TokenRequest(parameters, environ.get("HTTP_AUTHORIZATION"), context.address, context.user_agent, path)


def read_query() -> dict[str, str]:
    """Raises InvalidRequest."""
    return parse_query(request.query_string)


def authenticated(server: Server, form: TokenRequest) -> Client:
    """The client behind a request, as of now. Raises OAuthError, StoreUnavailable."""
    server.rooms.feed.sync()
    client = server.client_authentication.authenticate(form.authorization, form.parameters, form.path)
    current().client_id = client.client_id
    return client


# RFC 6749 section 5.1: both on whatever holds tokens
UNCACHED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def json_answer(body: Mapping[str, Any], status: int = 200) -> Response:
    return uncached(to_json(body), "application/json", status)


def uncached(body: str | bytes, media_type: str, status: int = 200) -> Response:
    return Response(body, status, UNCACHED, mimetype=media_type)
