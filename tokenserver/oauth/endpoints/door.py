"""The door in front of Flask: what is asked most is answered here, without Flask's dispatch (docs/adr/0020).

The same functions answer at either door, and the same ones add header fields, events and the line in the log. Here
only usual requests are answered, and successes: an error is rendered by Flask, and what is unusual in any way goes
to Flask untouched.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected

from tokenserver.oauth import denials
from tokenserver.oauth.endpoints import cors, introspection, revocation, token
from tokenserver.oauth.endpoints.request import UNCACHED, Server, form_of
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.web import rate_limit, request_context, security_headers
from tokenserver.web.request_context import RequestContext

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Fields = list[tuple[str, str]]

HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# That of clients that don't care, and of those that want what is there.
ACCEPTED: Final = frozenset({"*/*", "application/json"})
LENGTH: Final = re.compile(r"[1-9][0-9]{0,5}")


class Form(NamedTuple):
    """An endpoint that takes a form and answers with JSON. `cors`: see `Endpoint`."""

    answer: Callable[[Server, TokenRequest], Mapping[str, Any]]
    cors: bool


FORMS: Final = {
    "/oauth/token": Form(token.answer, cors=True),
    "/oauth/introspect": Form(introspection.answer, cors=False),
    "/oauth/revoke": Form(revocation.answer, cors=True),
}
# The same for everybody; JWKS until the ring changes.
DOCUMENTS: Final = (
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
)


class Door:
    """`require_clock`: raises where nothing may be decided by this node's clock. `max_body`: bytes."""

    def __init__(self, app: Flask, server: Server, *, require_clock: Callable[[], None], max_body: int) -> None:
        self._app = app
        self._flask: WSGIApplication = app.wsgi_app
        self._server = server
        self._require_clock = require_clock
        self._max_body = max_body
        self._documents: dict[tuple[str, str], Document] = {}
        https = server.settings.issuer.startswith("https:")
        self._fields = {path: _fixed_fields(form, https=https) for path, form in FORMS.items()}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if method == "POST" and path in FORMS and self._is_usual(environ) and self._has_body(environ):
            return self._form(path, environ, start_response)
        if method == "GET" and path in DOCUMENTS and self._is_usual(environ):
            return self._document(path, environ, start_response)
        return self._flask(environ, start_response)

    @staticmethod
    def _is_usual(environ: "WSGIEnvironment") -> bool:
        return (
            not environ.get("QUERY_STRING")
            and not environ.get("SCRIPT_NAME")
            and "HTTP_TRANSFER_ENCODING" not in environ
            and environ.get("HTTP_ACCEPT", "*/*") in ACCEPTED
            and HOST.fullmatch(environ.get("HTTP_HOST", "")) is not None
        )

    def _has_body(self, environ: "WSGIEnvironment") -> bool:
        length = environ.get("CONTENT_LENGTH", "")
        return LENGTH.fullmatch(length) is not None and int(length) <= self._max_body

    def _form(self, path: str, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        context = request_context.begin(environ, path, f"POST {path}")
        form = FORMS[path]
        try:
            self._require_clock()
            answer = form.answer(self._server, form_of(environ, _body(environ), "", path))
            fields = cors.fields(self._server, environ.get("HTTP_ORIGIN")) if form.cors else []
            denials.note(self._server.rooms.trail, context)
        except Exception as error:  # noqa: BLE001 - Flask's handlers know all of them
            return self._refuse(error, environ, start_response)
        body = json.dumps(answer).encode()
        fields += [("Content-Length", str(len(body))), *self._fields[path], *rate_limit.fields(context)]
        return _send(context, "200 OK", fields, body, start_response)

    def _refuse(
        self, error: Exception, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """As Flask answers it when a view raises it, its `after_request` functions included."""
        with self._app.request_context(environ):
            response = self._app.finalize_request(self._app.handle_user_exception(error))
            return response(environ, start_response)

    def _document(self, path: str, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Flask's own answer, kept for as long as it would answer the same."""
        if not CONDITIONS.isdisjoint(environ):
            return self._flask(environ, start_response)
        keys = self._server.keys.current()
        wanted = environ.get("HTTP_IF_NONE_MATCH", "")
        kept = self._documents.get((path, wanted))
        if kept is None or kept.keys is not keys:
            return self._learn(path, wanted, keys, environ, start_response)
        context = request_context.begin(environ, path, f"GET {path}")
        return _send(context, kept.status, list(kept.fields), kept.body, start_response)

    def _learn(
        self,
        path: str,
        wanted: str,
        keys: object,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
    ) -> Iterable[bytes]:
        heard: list[Any] = []

        def listen(status: str, fields: Fields, *exc_info: Any) -> Any:
            heard[:] = [status, fields]
            return start_response(status, fields, *exc_info)

        body = b"".join(self._flask(environ, listen))
        status, fields = heard
        # Of what callers make up, only the one word that matters is kept.
        tag = dict(fields).get("ETag")
        if (status[:3], wanted) in {("200", ""), ("304", tag)}:
            lasting = tuple(field for field in fields if field[0] != "X-Request-ID")
            fresh = {asked: kept for asked, kept in self._documents.items() if kept.keys is keys}
            self._documents = fresh | {(path, wanted): Document(keys, status, lasting, body)}
        return [body]


class Document(NamedTuple):
    """`keys`: the set that it was made of, or before."""

    keys: object
    status: str
    fields: tuple[tuple[str, str], ...]
    body: bytes


# With one of these, Flask decides what is answered.
CONDITIONS: Final = frozenset({"HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"})


def _fixed_fields(form: Form, *, https: bool) -> Fields:
    headers = Headers([*UNCACHED.items(), ("Content-Type", "application/json")])
    if form.cors:
        headers.add("Vary", "Origin")
    security_headers.complete(headers, 200, https=https)
    return list(headers)


def _body(environ: "WSGIEnvironment") -> bytes:
    length = int(environ["CONTENT_LENGTH"])
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) != length:
        raise ClientDisconnected
    return body


def _send(
    context: RequestContext, status: str, fields: Fields, body: bytes, start_response: "StartResponse"
) -> Iterable[bytes]:
    fields.append(("X-Request-ID", context.request_id or ""))
    request_context.answered(context, int(status[:3]), context.path or "")
    start_response(status, fields)
    return [body]
