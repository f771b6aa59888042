"""Every denial is an event, written before it is answered; and what a view allowed by itself."""

from typing import Final

from flask import Flask, Response

from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.signals import metrics
from tokenserver.web.problems import Failure
from tokenserver.web.request_context import RequestContext, current

STATUSES: Final = frozenset({401, 403, 429})
# RFC 6749 section 5.2: what is answered with 400 and denies nevertheless.
WORDS: Final = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_scope",
        "invalid_target",
        "unauthorized_client",
    }
)
REASON_LENGTH: Final = 60


def register(app: Flask, trail: Trail) -> None:
    @app.after_request
    def add(response: Response) -> Response:
        note(trail, current())
        return response


def note(trail: Trail, context: RequestContext) -> None:
    """Before a request is answered, whoever answers it."""
    events = list(context.events)
    failure = context.failure
    if not events and isinstance(failure, Failure) and _is_denial(failure):
        events.append(_denial(trail, context, failure))
    if context.allowed:
        events.append(trail.describe(Event.ACCESS_ALLOWED, details={"permissions": list(context.allowed)}))
    context.events, context.allowed = [], ()
    trail.save(*events)


def _is_denial(failure: Failure) -> bool:
    # RFC 8693 section 2.2.2: a token that can't be accepted makes an invalid request; others have no cause to tell.
    is_unacceptable = failure.code == "invalid_request" and bool(failure.private)
    return failure.status in STATUSES or failure.code in WORDS or is_unacceptable


def _denial(trail: Trail, context: RequestContext, failure: Failure) -> bytes:
    details: dict[str, object] = {"status": failure.status}
    if failure.status == 403 and context.demanded:
        details["permissions"] = list(context.demanded)
    if context.grant_type:
        details["grant_type"] = context.grant_type
    if failure.private:
        details["cause"] = failure.private[:REASON_LENGTH]
    permission = context.demanded[0] if failure.status == 403 and context.demanded else ""
    metrics.denials.count(context.endpoint or metrics.NO_ENDPOINT, permission, failure.code)
    event = Event.TOKEN_DENIED if context.grant_type else Event.ACCESS_DENIED
    return trail.describe(event, outcome="denied", reason=failure.code[:REASON_LENGTH], details=details)
