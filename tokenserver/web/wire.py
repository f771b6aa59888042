"""JSON in and out: `@takes(schema)` and `@gives(schema, status)` around a view."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from flask import Response, json, request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from tokenserver.errors import FieldError, Invalid

P = ParamSpec("P")
T = TypeVar("T")


def takes(schema: type[Schema]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Pass the validated JSON body to the view as `body`. Answers 415, 400 or 422."""

    def decorate(view: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            return view(*args, body=read_body(schema()), **kwargs)

        wrapper.__takes__ = schema  # type: ignore[attr-defined]
        return wrapper

    return decorate


def gives(schema: type[Schema], status: int = 200) -> Callable[[Callable[P, Any]], Callable[P, Response]]:
    """Render what the view returns."""

    def decorate(view: Callable[P, Any]) -> Callable[P, Response]:
        @functools.wraps(view)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> Response:
            return json_response(schema(unknown=EXCLUDE).dump(view(*args, **kwargs)), status)

        wrapper.__gives__ = (schema, status)  # type: ignore[attr-defined]
        return wrapper

    return decorate


def json_response(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


def body_bytes() -> bytes:
    """The whole body of the request. Raises RequestEntityTooLarge."""
    body = request.get_data(cache=False)
    # Werkzeug cuts a body of unknown length off at the limit, and says nothing.
    is_cut = request.content_length is None and len(body) == request.max_content_length
    if is_cut and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return body


def read_body(schema: Schema) -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        body = json.loads(body_bytes())
        # Lone surrogates and NUL pass JSON and fail much later: in the hash, in PostgreSQL.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise BadRequest from None
    if not isinstance(body, dict):
        raise BadRequest
    if _holds_nul(body):
        raise BadRequest
    try:
        return dict(schema.load(body, unknown=RAISE))
    except ValidationError as error:
        raise Invalid(list(_flatten(error.messages_dict))) from None


def _holds_nul(body: Any) -> bool:
    # Not by recursion: what the parser could just nest would be too deep for a walk.
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _flatten(messages: dict[Any, Any], prefix: str = "") -> list[FieldError]:
    """marshmallow nests its messages as the body is nested; `roles.0` names the first of `roles`."""
    found = []
    for key, value in messages.items():
        field = f"{prefix}{key}"
        if isinstance(value, dict):
            found += _flatten(value, f"{field}.")
        else:
            found += [FieldError(field, str(message)) for message in value]
    return found
