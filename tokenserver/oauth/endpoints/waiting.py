"""Who has the revocation list and prefers to wait (`Prefer: wait=…`, RFC 7240) is answered when there is a new one.

A layer of its own, in front of what limits how many requests work at a time: who waits takes no turn from them.
After the wait the endpoint answers, whatever it has to say. docs/adr/0027-waiting-for-revocations.md.
"""

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from werkzeug.http import parse_etags

from tokenserver.oauth.endpoints import path_of
from tokenserver.tokens.revocation_list import TTL
from tokenserver.tokens.revocation_watch import Watch
from tokenserver.web.prefer import wait_of

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# A list is as fresh as one can be for so long.
MOST_SECONDS: Final = TTL
# Who was told of a revocation at the same moment, and asks again, isn't answered at the same moment again.
SHORTEST: Final = 0.8
PATH: Final = path_of("revocation_list_uri")


def waiting(application: "WSGIApplication", watch: Watch) -> "WSGIApplication":
    """For a server with a thread for whoever `prefers_to_wait`. Any other answers by `application` alone."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        seconds = min(_preferred(environ), MOST_SECONDS)
        if not seconds or watch.is_ending():
            return application(environ, start_response)
        known = parse_etags(environ.get("HTTP_IF_NONE_MATCH"))
        upper_bound = seconds * random.uniform(SHORTEST, 1)  # noqa: S311 - nobody gains by guessing it
        if not known or watch.wait(known.contains_weak, upper_bound):
            more = ("Preference-Applied", f"wait={seconds}")
        elif watch.is_ending():
            more = ("Connection", "close")  # RFC 9112 section 9.6; it came before that was known
        else:
            return application(environ, start_response)
        return application(environ, _adding(more, start_response))

    return answer


def prefers_to_wait(environ: "WSGIEnvironment") -> bool:
    return _preferred(environ) > 0


def _preferred(environ: "WSGIEnvironment") -> int:
    """Seconds; 0 for every other request, and for one with a body, which would wait unread."""
    if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "GET":
        return 0
    if environ.get("CONTENT_LENGTH", "") not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in environ:
        return 0
    return wait_of(environ.get("HTTP_PREFER"))


def _adding(field: tuple[str, str], start_response: "StartResponse") -> "StartResponse":
    """Section 3: what was honoured is told, with the answers that it was about."""

    def start(status: str, fields: list[tuple[str, str]], *exc_info: Any) -> Any:
        is_told = status[:3] in {"200", "304"} or field[0] != "Preference-Applied"
        return start_response(status, [*fields, field] if is_told else fields, *exc_info)

    return start
