"""The error page: the tongue of every path that people open in a browser."""

from http import HTTPStatus

from flask import Response

from tokenserver.oauth.errors import OAuthError
from tokenserver.pages.rendering import render as render_page
from tokenserver.web.problems import Failure


def render(failure: Failure, error: Exception) -> Response:
    """Status, code and request id as in the other tongues. No challenge: a browser would ask for a password."""
    is_oauth = isinstance(error, OAuthError)
    status = error.status if isinstance(error, OAuthError) else failure.status
    response = render_page(
        "error.html",
        status,
        title=HTTPStatus(status).phrase,
        code=failure.code,
        sentence=failure.detail,
        is_oauth=is_oauth,
        retry_after=failure.headers.get("Retry-After"),
    )
    for name in ("Allow", "Retry-After"):
        if name in failure.headers:
            response.headers[name] = failure.headers[name]
    return response
