"""JSON in and out, as decorators that the API description is read off: `@takes` a body, `@queries` parameters,
`@gives` an answer, `@refuses` with a documented error.

Their order, top to bottom: requires, takes, queries, gives, refuses. A request is judged in that order too: who
asks before what is asked.
"""

import functools
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from flask import Response, g, json, request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from tokenserver.errors import FieldError, Invalid, PreconditionFailed

P = ParamSpec("P")
T = TypeVar("T")
MAX_FIELD_ERRORS: Final = 20
MAX_DEPTH: Final = 64


class Given(NamedTuple):
    """What a view answers. `etag`: the answer names its version, which a later write may insist on."""

    schema: type[Schema] | None
    status: int
    etag: bool


class Refused(NamedTuple):
    status: int
    code: str


def takes(schema: type[Schema]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Pass the validated JSON body to the view as `body`. Answers 415, 400 or 422."""

    def decorate(view: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            return view(*args, body=read_body(schema), **kwargs)

        wrapper.__takes__ = schema  # type: ignore[attr-defined]
        return wrapper

    return decorate


def queries(schema: type[Schema]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Pass the validated parameters of the URL to the view as `query`. Answers 422, also for unknown ones."""

    def decorate(view: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            return view(*args, query=read_query(schema), **kwargs)

        wrapper.__queries__ = schema  # type: ignore[attr-defined]
        return wrapper

    return decorate


def gives(
    schema: type[Schema] | None, status: int = 200, *, etag: bool | type[Schema] = False
) -> Callable[[Callable[P, Any]], Callable[P, Response]]:
    """Render what the view returns; `None`: nothing, and nothing is rendered.

    `etag`: name the version of what is rendered; or of the resource in this schema, where the answer holds more.
    """

    def decorate(view: Callable[P, Any]) -> Callable[P, Response]:
        @functools.wraps(view)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> Response:
            if request.query_string and not g.get("query_read"):
                # It takes none: `?dry_run=true` where there is none must not be a real run.
                read_query(Schema)
            result = view(*args, **kwargs)
            if schema is None:
                return Response(status=status)
            body = rendered(schema, result)
            answer = Response(body, status, mimetype="application/json")
            if etag:
                answer.set_etag(_tag(body if etag is True else rendered(etag, result)))
            return answer

        wrapper.__gives__ = Given(schema, status, bool(etag))  # type: ignore[attr-defined]
        return wrapper

    return decorate


def refuses(*errors: tuple[int, str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Name the errors, as (status, code), that are this view's own; those of the other decorators are known."""

    def decorate(view: Callable[P, T]) -> Callable[P, T]:
        view.__refuses__ = tuple(Refused(*each) for each in errors)  # type: ignore[attr-defined]
        return view

    return decorate


# Versions (RFC 9110 section 13)


def require_match(schema: type[Schema], result: Any) -> None:
    """RFC 9110 section 13.1.1: with If-Match, write only over the version that the caller saw.

    `result`: the resource as it is in the transaction that writes. Raises PreconditionFailed.
    """
    wanted = request.if_match
    if "If-Match" in request.headers and not wanted.contains(_tag(rendered(schema, result))):
        raise PreconditionFailed


def _tag(body: str) -> str:
    """Strong: a change of any member makes another one."""
    return sha256(body.encode()).hexdigest()[:32]


def rendered(schema: type[Schema], result: Any) -> str:
    """The JSON of an answer."""
    return json.dumps(_dumper(schema).dump(result))


# One for all: making it costs three times what it does.
@functools.cache
def _dumper(schema: type[Schema]) -> Schema:
    return schema(unknown=EXCLUDE)


@functools.cache
def _reader(schema: type[Schema]) -> Schema:
    return schema()


def json_response(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


# Reading


def body_bytes() -> bytes:
    """The whole body of the request. Raises RequestEntityTooLarge."""
    body = request.get_data(cache=False)
    # Werkzeug cuts a body of unknown length off at the limit, and says nothing.
    is_cut = request.content_length is None and len(body) == request.max_content_length
    if is_cut and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return body


def read_body(schema: type[Schema]) -> dict[str, Any]:
    return loaded(schema, read_object())


def read_object() -> dict[str, Any]:
    """The body, one JSON object. Raises UnsupportedMediaType, RequestEntityTooLarge, BadRequest."""
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        # RFC 8259 section 8.1: UTF-8. The parser would guess others too, which whoever looks on reads otherwise.
        body = json.loads(body_bytes().decode(), object_pairs_hook=_object)
        # Lone surrogates and NUL pass JSON and fail much later: in the hash, in PostgreSQL.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadRequest from None
    if not isinstance(body, dict) or not _is_fit(body):
        raise BadRequest
    return body


def read_query(schema: type[Schema]) -> dict[str, Any]:
    """Every parameter once."""
    g.query_read = True
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise Invalid([FieldError(_name(name), "Send it once.") for name in repeated[:MAX_FIELD_ERRORS]])
    if any("\0" in value for value in request.args.values()):
        raise BadRequest
    return loaded(schema, request.args.to_dict())


def loaded(schema: type[Schema], values: dict[str, Any]) -> dict[str, Any]:
    """Raises Invalid."""
    try:
        return dict(_reader(schema).load(values, unknown=RAISE))
    except ValidationError as error:
        raise Invalid(list(_flatten(error.messages_dict))[:MAX_FIELD_ERRORS]) from None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 8259 section 4: names should be unique; which of two counts is anybody's guess, so neither does.
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError("a member twice")
        members[name] = value
    return members


def _is_fit(body: Any) -> bool:
    """Without NUL, and no deeper than whoever walks it by recursion can go."""
    # Not by recursion: what the parser could just nest would be too deep for a walk.
    waiting = [(body, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return False
        elif isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                return False
            members = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            waiting += [(member, depth + 1) for member in members]
    return True


def _flatten(messages: dict[Any, Any], prefix: str = "") -> list[FieldError]:
    """marshmallow nests its messages as the body is nested; `roles.0` names the first of `roles`."""
    found = []
    for key, value in messages.items():
        field = _name(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _flatten(value, f"{field}.")
        else:
            found += [FieldError(field, str(message)) for message in value]
    return found


def _name(field: str) -> str:
    return field[:100]
