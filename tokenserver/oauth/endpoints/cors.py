"""Which pages may call us by script and read the answers (RFC 9700 section 2.6, the CORS protocol of Fetch): those
of a client's own origins, which are those of its redirect URIs.

No cookie is taken where this holds, so no credentials are allowed. What is the same for everybody, metadata and
keys, every page may read: `jwks.cached` says so.
"""

from typing import Final

from flask import Response, request

from tokenserver.errors import StoreUnavailable
from tokenserver.oauth.endpoints.request import Server
from tokenserver.web.request_context import current

# What a page may send and read beside what Fetch always lets through.
REQUEST_HEADERS: Final = "Authorization, Content-Type"
RESPONSE_HEADERS: Final = "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-ID"
MAX_AGE_SECONDS: Final = 600


def preflight(server: Server, methods: tuple[str, ...]) -> Response:
    """A browser asks before the request, and can't say for which client: any client's origin may go on."""
    response = Response(status=204)
    response.headers["Allow"] = ", ".join((*methods, "OPTIONS"))
    origin = request.headers.get("Origin")
    if origin is None:
        return response
    response.vary.add("Origin")
    server.rooms.feed.sync()
    if origin in server.clients.origins():
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Methods"] = ", ".join(methods)
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = str(MAX_AGE_SECONDS)
    return response


def let_read(server: Server, response: Response) -> None:
    """The answer itself. It is another one for other pages."""
    response.vary.add("Origin")
    response.headers.extend(fields(server, request.headers.get("Origin")))


def fields(server: Server, origin: str | None) -> list[tuple[str, str]]:
    """For a page of the client that authenticated, or whose token was good, and no other's (Keycloak CVE-2026-37977
    took the client from a token that it had not verified)."""
    client_id = current().client_id
    if origin is None or client_id is None:
        return []
    try:
        client = server.clients.find(client_id)
    except StoreUnavailable:
        return []
    if client is None or origin not in client.origins:
        return []
    return [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", RESPONSE_HEADERS)]
