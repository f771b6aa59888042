"""From Flask to plain values and back, for every endpoint that takes a form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, json, request
from werkzeug.exceptions import RequestEntityTooLarge

from tokenserver.clients.keys import ClientKeys
from tokenserver.clients.registry import Client, Clients
from tokenserver.config import Settings
from tokenserver.oauth.active_token import ActiveTokens
from tokenserver.oauth.authorization import Authorization
from tokenserver.oauth.authorization_request import AuthorizationRequests
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.client_authentication import ClientAuthentication
from tokenserver.oauth.errors import BodyTooLarge
from tokenserver.oauth.grants.request import Collaborators, TokenRequest
from tokenserver.oauth.interaction import Interactions
from tokenserver.oauth.parameters import parse_form
from tokenserver.oauth.pipeline import Pipeline
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.web.cookies import Cookies
from tokenserver.web.fetch import Fetcher
from tokenserver.web.request_context import current
from tokenserver.web.wire import body_bytes


@dataclass(frozen=True)
class Server:
    """What the endpoints work with. `endpoint_paths`: metadata key → path."""

    settings: Settings
    keys: KeyRing
    clients: Clients
    client_keys: ClientKeys
    client_authentication: ClientAuthentication
    fetcher: Fetcher
    rooms: Collaborators
    pipeline: Pipeline
    active_tokens: ActiveTokens
    browser_sessions: BrowserSessions
    interactions: Interactions
    cookies: Cookies
    authorization_requests: AuthorizationRequests
    authorization: Authorization
    endpoint_paths: Mapping[str, str]


def read_form() -> TokenRequest:
    """Raises InvalidRequest, BodyTooLarge."""
    try:
        body = body_bytes()
    except RequestEntityTooLarge:
        raise BodyTooLarge from None
    parameters = parse_form(body, request.headers.get("Content-Type", ""), request.query_string.decode("latin-1"))
    context = current()
    authorization = request.headers.get("Authorization")
    return TokenRequest(parameters, authorization, context.address, context.user_agent, request.path)


def authenticated(server: Server, form: TokenRequest) -> Client:
    """The client behind a request, as of now. Raises OAuthError, StoreUnavailable."""
    server.rooms.feed.sync()
    client = server.client_authentication.authenticate(form.authorization, form.parameters, form.path)
    current().client_id = client.client_id
    return client


def json_answer(body: Mapping[str, Any]) -> Response:
    # RFC 6749 section 5.1: both headers on whatever holds tokens
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
    return Response(json.dumps(body), 200, headers, mimetype="application/json")
