"""The door in front of Flask: what is asked most is answered here, without Flask's dispatch (docs/adr/0020).

The same functions answer at either door, and the same ones add header fields, events and the line in the log. Here
only usual requests are answered, and successes: an error is rendered by Flask, and what is unusual in any way goes
to Flask untouched.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected

from tokenserver.compact_json import to_json
from tokenserver.identity.routes import own_account
from tokenserver.identity.schemas import UserSchema
from tokenserver.oauth import denials
from tokenserver.oauth.endpoints import cors, introspection, revocation, token, userinfo
from tokenserver.oauth.endpoints.request import UNCACHED, Server, form_of
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.storage.aside import READ, AtOnce, Kept, Reading
from tokenserver.verify.bearer import credentials
from tokenserver.web import rate_limit, request_context, security_headers
from tokenserver.web.request_context import RequestContext
from tokenserver.web.wire import rendered

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Fields = list[tuple[str, str]]

HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# That of clients that don't care, and of those that want what is there.
ACCEPTED: Final = frozenset({"*/*", "application/json"})
LENGTH: Final = re.compile(r"[1-9][0-9]{0,5}")


Answer = tuple[bytes, str]  # the body and its media type


class Row(NamedTuple):
    """`read`: what a request says, by its environment and path alone. `answer`: to that. `cors`: see `Endpoint`.
    `headers`: what its answers say beside what all say."""

    read: Callable[["WSGIEnvironment", str], Any]
    answer: Callable[[Server, Any], Answer]
    cors: bool = False
    headers: Mapping[str, str] = UNCACHED


def _form(environ: "WSGIEnvironment", path: str) -> TokenRequest:
    return form_of(environ, _body(environ), "", path)


def _token(environ: "WSGIEnvironment", _path: str) -> str:
    return credentials(environ.get("HTTP_AUTHORIZATION"))


def _in_json(
    answer: Callable[[Server, TokenRequest], Mapping[str, Any]],
) -> Callable[[Server, TokenRequest], Answer]:
    return lambda server, form: (to_json(answer(server, form)), JSON)


def _own_account(server: Server, token: str) -> Answer:
    """Behind `@requires()`."""
    claims = server.active_tokens.verifier.verify(token)
    server.admission.admit(claims, ())
    return rendered(UserSchema, own_account(server.rooms.people)).encode(), JSON


JSON: Final = "application/json"
ROWS: Final = {
    "POST /oauth/token": Row(_form, _in_json(token.answer), cors=True),
    "POST /oauth/introspect": Row(_form, _in_json(introspection.answer)),
    "POST /oauth/revoke": Row(_form, _in_json(revocation.answer), cors=True),
    "GET /oauth/userinfo": Row(_token, userinfo.answer, cors=True),
    "GET /users/me": Row(_token, _own_account, headers={}),
}
# The same for everybody; JWKS until the ring changes.
DOCUMENTS: Final = (
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
)


# Those that seldom ask SQL. A revocation is written there each time.
LIGHT: Final = frozenset({*ROWS, *(f"GET {path}" for path in DOCUMENTS)} - {"POST /oauth/revoke"})
# Of the grants, those that seldom do. A name that is spelled otherwise, or twice, may mean another grant.
FORM: Final = re.compile(rb"[a-z_]+=[^&]*(?:&[a-z_]+=[^&]*)*")
LIGHT_GRANT: Final = re.compile(rb"(?:^|&)grant_type=(?:client_credentials|refresh_token)(?:&|$)")


def is_light(environ: "WSGIEnvironment", body: bytes) -> bool:
    """Whether the request seldom asks more than Redis: it need not wait for those that do (docs/adr/0031)."""
    endpoint = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    if endpoint not in LIGHT:
        return False
    if b"client_assertion" in body:  # its keys may have to be fetched from the client
        return False
    if endpoint != "POST /oauth/token":
        return FORM.fullmatch(body) is not None if body else True
    return LIGHT_GRANT.search(body) is not None and FORM.fullmatch(body) is not None


class Door:
    """`require_clock`: raises where nothing may be decided by this node's clock. `max_body`: bytes."""

    def __init__(self, app: Flask, server: Server, *, require_clock: Callable[[], None], max_body: int) -> None:
        self._app = app
        self._flask: WSGIApplication = app.wsgi_app
        self._server = server
        self._require_clock = require_clock
        self._max_body = max_body
        self._documents: dict[tuple[str, str], Document] = {}
        self._https = server.settings.issuer.startswith("https:")
        self._fields: dict[tuple[str, str], Fields] = {}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if read := environ.get(READ):
            return read[0].answer(environ, start_response)  # type: ignore[no-any-return]
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        endpoint = f"{method} {path}"
        row = ROWS.get(endpoint)
        if row is not None and self._is_usual(environ) and self._has_usual_body(environ, method):
            return self._answer(row, endpoint, path, None, environ, start_response)
        if method == "GET" and path in DOCUMENTS and self._is_usual(environ) and CONDITIONS.isdisjoint(environ):
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

    def _has_usual_body(self, environ: "WSGIEnvironment", method: str) -> bool:
        length = environ.get("CONTENT_LENGTH", "")
        if method == "GET":
            return length in {"", "0"} and not environ.get("CONTENT_TYPE")
        return LENGTH.fullmatch(length) is not None and int(length) <= self._max_body

    def _answer(
        self,
        row: Row,
        endpoint: str,
        path: str,
        said: Any,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
    ) -> Iterable[bytes]:
        """`said`: what the row reads in the request, None where that wasn't read before."""
        context = request_context.begin(environ, path, endpoint)
        try:
            self._require_clock()
            if said is None:
                said = row.read(environ, path)
                _remember(environ, Reading(partial(self._answer, row, endpoint, path, said)))
            body, media_type = row.answer(self._server, said)
            fields = cors.fields(self._server, environ.get("HTTP_ORIGIN")) if row.cors else []
            denials.note(self._server.rooms.trail, context)
        except Exception as error:  # noqa: BLE001 - Flask's handlers know all of them
            return self._refuse(error, environ, start_response)
        fixed = self._fields.get((endpoint, media_type)) or self._fix(row, endpoint, media_type)
        fields += [("Content-Length", str(len(body))), *fixed, *rate_limit.fields(context)]
        return _send(context, "200 OK", fields, body, start_response)

    def _fix(self, row: Row, endpoint: str, media_type: str) -> Fields:
        """The header fields that are the same in all answers of a row."""
        headers = Headers([*row.headers.items(), ("Content-Type", media_type)])
        if row.cors:
            headers.add("Vary", "Origin")
        security_headers.complete(headers, 200, https=self._https)
        fixed = self._fields[endpoint, media_type] = list(headers)
        return fixed

    def _refuse(
        self, error: Exception, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """As Flask answers it when a view raises it, its `after_request` functions included."""
        with self._app.request_context(environ):
            response = self._app.finalize_request(self._app.handle_user_exception(error))
            return response(environ, start_response)

    def _document(self, path: str, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Flask's own answer, kept for as long as it would answer the same."""
        keys = self._server.keys.published()
        wanted = environ.get("HTTP_IF_NONE_MATCH", "")
        kept = self._documents.get((path, wanted))
        if kept is None or kept.keys is not keys:
            return self._learn(path, wanted, keys, environ, start_response)
        context = request_context.begin(environ, path, f"GET {path}")
        at_once = None
        if context.span is None:
            own_id = environ.get("HTTP_X_REQUEST_ID") == context.request_id
            at_once = partial(self._at_once, path, wanted, context, context.request_id if own_id else None)
        _remember(environ, Reading(partial(self._document, path), at_once))
        status, fields, body = kept.answer
        return _send(context, status, list(fields), body, start_response)

    def _at_once(self, path: str, wanted: str, like: RequestContext, request_id: str | None) -> AtOnce | None:
        """`_document` for who said the same before. `request_id`: that it named."""
        keys = self._server.keys.published_at_once()
        kept = self._documents.get((path, wanted))
        if kept is None or kept.keys is not keys:
            return None
        context = request_context.again(like, request_id=request_id)
        told = request_context.answer(context, int(kept.answer.status[:3]), path)
        return AtOnce(kept.answer, ("X-Request-ID", context.request_id or ""), request_context.tell, told)

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
            self._documents = fresh | {(path, wanted): Document(keys, Kept(status, lasting, body))}
        return [body]


class Document(NamedTuple):
    """`keys`: the set that it was made of, or before."""

    keys: object
    answer: Kept


# With one of these, Flask decides what is answered.
CONDITIONS: Final = frozenset({"HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"})


def _remember(environ: "WSGIEnvironment", reading: Reading) -> None:
    """For when the same bytes come on the connection: they are as usual then, and say the same."""
    kept = environ.get(READ)
    if kept == []:
        kept.append(reading)


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
