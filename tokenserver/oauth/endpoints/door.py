"""The door in front of Flask: what is asked most is answered here, without Flask's dispatch (docs/adr/0020).

The same functions answer at either door, and the same ones add header fields, events and the line in the log. Here
only usual requests are answered, and successes: an error is rendered by Flask, and what is unusual in any way goes
to Flask untouched.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected
from werkzeug.middleware.proxy_fix import ProxyFix

from tokenserver.compact_json import to_json
from tokenserver.identity.routes import own_account
from tokenserver.identity.schemas import UserSchema
from tokenserver.oauth import denials
from tokenserver.oauth.endpoints import cors, introspection, revocation, token, userinfo
from tokenserver.oauth.endpoints.request import UNCACHED, Server, form_of
from tokenserver.oauth.grants.request import TokenRequest
from tokenserver.storage.aside import afterwards
from tokenserver.verify.bearer import credentials
from tokenserver.web import rate_limit, request_context, security_headers
from tokenserver.web.request_context import RequestContext
from tokenserver.web.usual import Afterwards, Answer, Fields, Kept
from tokenserver.web.wire import rendered

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
# That of clients that don't care, and of those that want what is there; the last ones are axios's and Spring's own.
ACCEPTED: Final = frozenset(
    {
        "*/*",
        "application/json",
        "application/json, text/plain, */*",
        "application/json, application/*+json",
    }
)
LENGTH: Final = re.compile(r"[1-9][0-9]{0,5}")
# In an environment that ProxyFix has been at.
FIXED: Final = "werkzeug.proxy_fix.orig"

Rendered = tuple[bytes, str]  # the body and its media type


class Row(NamedTuple):
    """`read`: what a request says, by its environment and path alone. `answer`: to that. `cors`: see `Endpoint`.
    `headers`: what its answers say beside what all say."""

    read: Callable[["WSGIEnvironment", str], Any]
    answer: Callable[[Server, Any], Rendered]
    cors: bool = False
    headers: Mapping[str, str] = UNCACHED


def _form(environ: "WSGIEnvironment", path: str) -> TokenRequest:
    return form_of(environ, _body(environ), "", path)


def _token(environ: "WSGIEnvironment", _path: str) -> str:
    return credentials(environ.get("HTTP_AUTHORIZATION"))


def _in_json(
    answer: Callable[[Server, TokenRequest], Mapping[str, Any]],
) -> Callable[[Server, TokenRequest], Rendered]:
    return lambda server, form: (to_json(answer(server, form)), JSON)


def _own_account(server: Server, token: str) -> Rendered:
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
DOCUMENTS: Final = frozenset(
    {
        "GET /.well-known/jwks.json",
        "GET /.well-known/openid-configuration",
        "GET /.well-known/oauth-authorization-server",
    }
)

# Those that seldom ask SQL. A revocation is written there each time.
LIGHT: Final = (DOCUMENTS | ROWS.keys()) - {"POST /oauth/revoke"}
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


def usual_by(app: Flask) -> "Callable[[WSGIEnvironment], UsualRequest | UsualDocument | None]":
    """`Door.usual` of that in front of an application."""
    door = app.wsgi_app
    if not isinstance(door, Door):
        raise TypeError("there is no door in front of the application")
    return door.usual


class Door:
    """`require_clock`: raises where nothing may be decided by this node's clock. `max_body`: bytes.
    `trusted_proxies`: those in front of it, whose word on the caller's address is taken."""

    def __init__(
        self,
        app: Flask,
        server: Server,
        *,
        require_clock: Callable[[], None],
        max_body: int,
        trusted_proxies: int = 0,
    ) -> None:
        self.server = server
        self.require_clock = require_clock
        self._app = app
        self._flask: WSGIApplication = app.wsgi_app
        self._max_body = max_body
        # The address alone: host and scheme come from the issuer, never from a header.
        self._fix = ProxyFix(_nothing, x_for=trusted_proxies, x_proto=0) if trusted_proxies else None
        self._https = server.settings.issuer.startswith("https:")
        self._documents: dict[tuple[str, str], Document] = {}
        self._kept: dict[tuple[str, str], Kept] = {}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        usual = self.usual(environ)
        if usual is None:
            return self._flask(environ, start_response)
        kept, fields, body = usual.answer()
        start_response(kept.status, [*kept.fields, *fields])
        return [body]

    def usual(self, environ: "WSGIEnvironment") -> "UsualRequest | UsualDocument | None":
        """None for what is Flask's."""
        if self._fix is not None and FIXED not in environ:
            self._fix(environ, _nobody)
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        endpoint = f"{method} {path}"
        row = ROWS.get(endpoint)
        if row is not None and self._is_usual(environ) and self._has_usual_body(environ, method):
            return UsualRequest(self, row, endpoint, environ)
        if endpoint in DOCUMENTS and self._is_usual(environ) and CONDITIONS.isdisjoint(environ):
            return UsualDocument(self, endpoint, environ)
        return None

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

    def kept(self, row: Row, endpoint: str, media_type: str) -> Kept:
        """What is the same in all answers of a row."""
        kept = self._kept.get((endpoint, media_type))
        if kept is None:
            headers = Headers([*row.headers.items(), ("Content-Type", media_type)])
            if row.cors:
                headers.add("Vary", "Origin")
            security_headers.complete(headers, 200, https=self._https)
            kept = self._kept[endpoint, media_type] = Kept("200 OK", tuple(headers))
        return kept

    def refuse(self, error: Exception, environ: "WSGIEnvironment") -> Answer:
        """As Flask answers it when a view raises it, its `after_request` functions included."""
        with self._app.request_context(environ.copy()):
            return _asked(self._app.finalize_request(self._app.handle_user_exception(error)), environ)

    def document(self, path: str, wanted: str, keys: object) -> "Document | None":
        """That for `wanted`, an ETag or nothing; None before Flask has answered it for these keys."""
        document = self._documents.get((path, wanted))
        return document if document is not None and document.keys is keys else None

    def learn(self, path: str, wanted: str, keys: object, environ: "WSGIEnvironment") -> Answer:
        """Flask's own answer, kept for as long as it would answer the same."""
        answer = _asked(self._flask, environ.copy())
        status, fields = answer.kept
        # Of what callers make up, only the one word that matters is kept.
        if (status[:3], wanted) in {("200", ""), ("304", dict(fields).get("ETag"))}:
            lasting = Kept(status, tuple(field for field in fields if field[0] != REQUEST_ID))
            fresh = {asked: kept for asked, kept in self._documents.items() if kept.keys is keys}
            self._documents = fresh | {(path, wanted): Document(keys, lasting, answer.body)}
        return answer


class Document(NamedTuple):
    """`keys`: the set that it was made of, or before."""

    keys: object
    kept: Kept
    body: bytes


class UsualRequest:
    """One of a row's, in which nothing is unusual."""

    __slots__ = ("_asker", "_door", "_endpoint", "_environ", "_row", "_said")

    def __init__(self, door: Door, row: Row, endpoint: str, environ: "WSGIEnvironment") -> None:
        self._door, self._row, self._endpoint, self._environ = door, row, endpoint, environ
        self._asker = request_context.asker(environ, environ["PATH_INFO"], endpoint)
        self._said: Any = None

    @property
    def is_read(self) -> bool:
        return self._said is not None

    def answer(self) -> Answer:
        door, row, path = self._door, self._row, self._asker.path
        context = self._asker.begin()
        try:
            door.require_clock()
            if self._said is None:
                self._said = row.read(self._environ, path)
            body, media_type = row.answer(door.server, self._said)
            fields = cors.fields(door.server, self._environ.get("HTTP_ORIGIN")) if row.cors else []
            denials.note(door.server.rooms.trail, context)
        except Exception as error:  # noqa: BLE001 - Flask's handlers know all of them
            return door.refuse(error, self._environ)
        fields += [("Content-Length", str(len(body))), *rate_limit.fields(context), _named(context)]
        request_context.answered(context, 200, path)
        return Answer(door.kept(row, self._endpoint, media_type), fields, body)

    def at_once(self, afterwards: Afterwards) -> None:
        """Each is decided anew."""


class UsualDocument:
    """What is the same for everybody, until the keys change."""

    __slots__ = ("_asker", "_door", "_environ", "_wanted")
    is_read = True

    def __init__(self, door: Door, endpoint: str, environ: "WSGIEnvironment") -> None:
        self._door, self._environ = door, environ
        self._asker = request_context.asker(environ, environ["PATH_INFO"], endpoint)
        self._wanted = environ.get("HTTP_IF_NONE_MATCH", "")

    def answer(self) -> Answer:
        keys = self._door.server.keys.published()
        document = self._door.document(self._asker.path, self._wanted, keys)
        if document is None:
            return self._door.learn(self._asker.path, self._wanted, keys, self._environ)
        return self._with(document, self._asker.begin(), afterwards)

    def at_once(self, afterwards: Afterwards) -> Answer | None:
        keys = self._door.server.keys.published_at_once()
        document = self._door.document(self._asker.path, self._wanted, keys)
        return None if document is None else self._with(document, self._asker.context(), afterwards)

    def _with(self, document: Document, context: RequestContext, afterwards: Afterwards) -> Answer:
        _, kept, body = document
        request_context.answered(context, int(kept.status[:3]), self._asker.path, afterwards)
        return Answer(kept, [_named(context)], body)


# With one of these, Flask decides what is answered.
CONDITIONS: Final = frozenset({"HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"})
REQUEST_ID: Final = "X-Request-ID"


def _named(context: RequestContext) -> tuple[str, str]:
    return (REQUEST_ID, context.request_id or "")


def _asked(application: "WSGIApplication", environ: "WSGIEnvironment") -> Answer:
    heard: list[Any] = []

    def listen(status: str, fields: Fields, *_exc_info: Any) -> Any:
        heard[:] = [status, tuple(fields)]

    body = b"".join(application(environ, listen))
    return Answer(Kept(*heard), (), body)


def _nothing(_environ: "WSGIEnvironment", _start_response: "StartResponse") -> Iterable[bytes]:
    return ()


def _nobody(_status: str, _fields: Fields, _exc_info: Any = None) -> Any:
    """Whom `_nothing` is said to."""


def _body(environ: "WSGIEnvironment") -> bytes:
    length = int(environ["CONTENT_LENGTH"])
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) != length:
        raise ClientDisconnected
    return body
