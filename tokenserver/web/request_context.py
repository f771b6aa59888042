"""Who is asking: the request id and the caller, for logs, errors and the audit trail."""

import ipaddress
import re
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flask import Flask, Response, request

from tokenserver.signals import lines, metrics, traces
from tokenserver.signals.traces import RequestSpan
from tokenserver.storage.aside import afterwards
from tokenserver.storage.sql import ordered_id_digits
from tokenserver.web.usual import Afterwards

# A caller may bring its own id for tracing; anything else than plain words would forge log lines.
CONVERTER: Final = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")
# Parts of a path that whoever has them goes on with: a pending interaction, in the browser that began it.
KEPT_OUT: Final = frozenset({"interaction_id"})
ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")


@dataclass(slots=True)
class RequestContext:
    """`actor`: a user's or client's id, or the command line's "cli"; None for guests. `path` without the query,
    which may carry what must not be kept. `endpoint`: method and path template, as the API description has them.

    `demanded`: the permissions that the request was found to need. `allowed`: those that were granted and `events`:
    what happened, that are not yet in the log. `failure`: what the request is refused for. `assertion`: digest of
    the one that its client authenticated by, once that is used up. `quotas`: of the limits that it met
    (`web.rate_limit`), by their names. `holder`: who holds its token (`web.holder`). `language`: that of the page
    or mail that it leads to, once it was asked for (`web.language`).
    """

    request_id: str | None = None
    actor: str | None = None
    client_id: str | None = None
    address: str | None = None
    user_agent: str | None = None
    method: str | None = None
    path: str | None = None
    endpoint: str | None = None
    demanded: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    grant_type: str | None = None
    assertion: bytes | None = None
    quotas: dict[str, object] = field(default_factory=dict)
    events: list[bytes] = field(default_factory=list)
    failure: object = None
    holder: object = None
    span: RequestSpan | None = None
    language: str | None = None
    started_at: float = field(default_factory=time.perf_counter)


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext:
    context = _current.get()
    if context is None:
        context = RequestContext()
        _current.set(context)
    return context


def act_as(actor: str) -> None:
    """For the command line, which has no request."""
    _current.set(RequestContext(actor=actor))


@lru_cache(maxsize=1024)
def _address(peer: str | None) -> str | None:
    """None where there is none, as on a unix socket, and for what a proxy forwards that isn't one."""
    try:
        return str(ipaddress.ip_address((peer or "").partition("%")[0]))
    except ValueError:
        return None


def _printable(header: str) -> str:
    # PostgreSQL can't hold NUL, and a control character would forge lines where sessions are listed.
    return header if header.isprintable() else "".join(c for c in header if c.isprintable())


def _path() -> str:
    path = request.path
    for name in KEPT_OUT & (request.view_args or {}).keys():
        path = path.replace(str((request.view_args or {})[name]), f"{{{name}}}")
    return path


def _endpoint() -> str | None:
    if request.url_rule is None:
        return None
    return f"{request.method} {path_template(request.url_rule.rule)}"


def path_template(rule: str) -> str:
    """`/users/<uuid:user_id>` as OpenAPI spells it: `/users/{user_id}`."""
    return CONVERTER.sub(r"{\1}", rule)


def _new_request_id() -> str:
    """In the order of time, as the log has an index of them (docs/adr/0034)."""
    return ordered_id_digits(time.time_ns() // 1_000_000)


class Asker(NamedTuple):
    """What the contexts have in common of requests that say the same. `request_id`: where they name one."""

    request_id: str | None
    address: str | None
    user_agent: str | None
    method: str
    path: str
    endpoint: str | None
    traceparent: str | None

    def begin(self) -> RequestContext:
        """The context of a new request, which is this one from here on."""
        context = self.context()
        _current.set(context)
        return context

    def context(self) -> RequestContext:
        return RequestContext(
            request_id=self.request_id or _new_request_id(),
            address=self.address,
            user_agent=self.user_agent,
            method=self.method,
            path=self.path,
            endpoint=self.endpoint,
            span=traces.request(self.endpoint or metrics.NO_ENDPOINT, self.traceparent),
        )


def asker(environ: Mapping[str, Any], path: str, endpoint: str | None) -> Asker:
    """By the WSGI environment. `path`: printable."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return Asker(
        given if given and ACCEPTED_ID.fullmatch(given) else None,
        _address(environ.get("REMOTE_ADDR")),
        _printable(environ.get("HTTP_USER_AGENT", ""))[:255] or None,
        environ["REQUEST_METHOD"].upper()[:10],
        path,
        endpoint,
        environ.get("HTTP_TRACEPARENT"),
    )


def register(app: Flask) -> None:
    @app.before_request
    def start() -> None:
        path = _printable(_path().encode("utf-8", "replace").decode())[:255]
        asker(request.environ, path, _endpoint()).begin()

    @app.after_request
    def finish(response: Response) -> Response:
        context = current()
        response.headers["X-Request-ID"] = context.request_id or ""
        answered(context, response.status_code, _path().encode("unicode_escape").decode("ascii"))
        return response


Answered = tuple[RequestContext, int, str, float, float]  # the status, the path, when (unix s), after how many s


def answered(context: RequestContext, status: int, path: str, afterwards: Afterwards = afterwards) -> None:
    """The line in the log and the metrics of a request: once for each, whoever answers it. `path`: printable, and
    nothing left out; the path alone, as a query may carry what must not be logged.
    """
    afterwards(_tell, (context, status, path, time.time(), time.perf_counter() - context.started_at))
    if context.span is not None:
        method, endpoint = _labels(context)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": endpoint,
            "http.response.status_code": status,
            "tokenserver.request_id": context.request_id or "",
            "tokenserver.client_id": context.client_id or "",
        }
        context.span.end(attributes, failed=status >= 500)


def _tell(answers: Sequence[Answered]) -> None:
    for context, status, _, _, seconds in answers:
        method, endpoint = _labels(context)
        metrics.requests.count(endpoint, method, metrics.CLASSES[status // 100])
        metrics.request_seconds.observe(seconds, endpoint)
    if lines.are_wanted():
        lines.write([_line(*each) for each in answers])


def _line(context: RequestContext, status: int, path: str, at: float, seconds: float) -> bytes:
    kind, failure = status // 100, context.failure
    return lines.request(
        at,
        context.method or "",
        path,
        status,
        seconds,
        "success" if kind < 4 else "refused" if kind == 4 else "failed",
        None if failure is None else getattr(failure, "code", None),
        context.request_id,
        context.actor,
        context.client_id,
        context.address,
    )


def who() -> dict[str, str]:
    """For other lines of the log that a request causes."""
    context = _current.get()
    if context is None:
        return {}
    told = {"request_id": context.request_id, "actor": context.actor, "client_id": context.client_id}
    return {name: value for name, value in told.items() if value is not None}


@lru_cache(maxsize=1024)
def _split(endpoint: str) -> tuple[str, str]:
    method, _, path = endpoint.partition(" ")
    return method, path


def _labels(context: RequestContext) -> tuple[str, str]:
    if context.endpoint is not None:
        return _split(context.endpoint)
    method = context.method or ""
    return method if method in metrics.METHODS else "other", metrics.NO_ENDPOINT
