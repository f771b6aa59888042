"""JSON in and out: `@takes(schema)` and `@gives(schema, status)` around a view."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from flask import Response, json, request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

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


def read_body(schema: Schema) -> dict[str, Any]:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        body = json.loads(request.get_data())
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


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(k) or _holds_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(_holds_nul(v) for v in value)


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
