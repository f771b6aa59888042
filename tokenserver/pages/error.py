"""The error page: the tongue of every path that people open in a browser."""

from typing import Final

from flask import Response

from tokenserver.oauth.errors import OAuthError
from tokenserver.pages.rendering import render as render_page
from tokenserver.web.language import is_translated, marked, translated
from tokenserver.web.problems import Failure, phrase

TITLES: Final = {
    400: marked("This can't be done"),
    401: marked("Sign in first"),
    403: marked("Not allowed"),
    404: marked("Not found"),
    405: marked("This can't be done"),
    409: marked("This can't be done"),
    412: marked("Changed meanwhile"),
    413: marked("Too much was sent"),
    422: marked("This can't be done"),
    429: marked("Too many requests"),
    500: marked("Something went wrong"),
    503: marked("Not available right now"),
}
# What any page may be refused with, beside what its own room says.
GENERAL: Final = (
    marked("A store that this request needs is not available. Try again."),
    marked("Registration is closed."),
    marked("The body is larger than 64 KiB."),
    marked("The clock of this server is wrong. Try again: another one may answer."),
    marked("The request is malformed."),
    marked("The server can't decide this right now. Try again."),
    marked("The server met an unexpected condition."),
    marked("There is nothing here."),
    marked("This is not allowed."),
    marked("This method is not allowed here."),
    marked("This sign-in was begun too long ago or in another browser. Start again from the application."),
    marked("Too many requests. Slow down."),
    marked("Too many sign-ins at this moment. Try again."),
    marked("Too many sign-ins of this account failed. Wait, or send the code of your second factor too."),
)


def title_of(status: int) -> str:
    return translated(TITLES.get(status, phrase(status)))


def render(failure: Failure, error: Exception) -> Response:
    """Status, code and request id as in the other tongues. No challenge: a browser would ask for a password."""
    is_oauth = isinstance(error, OAuthError)
    status = error.status if isinstance(error, OAuthError) else failure.status
    response = page(
        status,
        failure.code,
        failure.detail,
        retry_after=failure.headers.get("Retry-After"),
        is_oauth=is_oauth,
    )
    if "Allow" in failure.headers:
        response.headers["Allow"] = failure.headers["Allow"]
    return response


def page(
    status: int, code: str, detail: str, *, retry_after: str | None = None, is_oauth: bool = False
) -> Response:
    """`detail`: a sentence in English, which is translated where it can be."""
    response = render_page(
        "error.html",
        status,
        title=title_of(status),
        code=code,
        sentence=translated(detail),
        # WCAG 2.2, success criterion 3.1.2: what is told to developers is said in English.
        is_english=not is_translated(detail),
        is_oauth=is_oauth,
        retry_after=retry_after,
    )
    if retry_after:
        response.headers["Retry-After"] = retry_after
    return response
