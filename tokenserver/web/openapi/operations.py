"""One view of the REST side as an OpenAPI operation, read off its decorators."""

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from tokenserver.web.dry_run import EffectSchema
from tokenserver.web.openapi.answers import HEADERS, Problems, success
from tokenserver.web.openapi.examples import UUID, example_of
from tokenserver.web.openapi.schemas import Json, Schemas
from tokenserver.web.wire import Given, Refused

CONVERTED: Final = re.compile(r"<(?:(\w+)(?:\(.*?\))?:)?(\w+)>")
CONVERTERS: Final[dict[str, Json]] = {
    "uuid": {"type": "string", "format": "uuid", "examples": [UUID]},
    "int": {"type": "integer", "minimum": 0},
}
TEXT: Final[Json] = {"type": "string", "minLength": 1}
WRITES: Final = {"PUT", "PATCH", "DELETE"}
IF_MATCH: Final[Json] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` that was read: the write is refused with 412 when there is a newer version "
    "(RFC 9110 section 13.1.1).",
    "schema": {"type": "string"},
}

View = Callable[..., Any]


class Operations:
    def __init__(self, schemas: Schemas, problems: Problems) -> None:
        self._schemas = schemas
        self._problems = problems

    def announce(self, view: View) -> None:
        """What it answers, before the first body is described."""
        given: Given = view.__gives__  # type: ignore[attr-defined]
        if given.schema is not None:
            self._schemas.answer(given.schema)
        if _is_rehearsable(view):
            self._schemas.answer(EffectSchema)

    def operation(self, view: View, method: str, rule: str, *, versioned: bool) -> Json:
        """`versioned`: what the path names has an ETag."""
        refused: tuple[Refused, ...] = getattr(view, "__refuses__", ())
        has_match = (versioned and method in WRITES) or any(each.status == 412 for each in refused)
        parameters = [_path_parameter(*found) for found in CONVERTED.findall(rule)]
        if queries := getattr(view, "__queries__", None):
            parameters += self._schemas.query(queries)
        described: Json = _texts(view) | {"security": _security(view)}
        if has_match:
            parameters.append(IF_MATCH)
        if parameters:
            described["parameters"] = parameters
        if takes := getattr(view, "__takes__", None):
            schema = self._schemas.body(takes)
            described["requestBody"] = {"required": True, "content": {"application/json": self._media(schema)}}
        codes = _refusals(view, has_path="<" in rule, has_match=has_match)
        return described | {"responses": self._successes(view) | self._problems.of(codes)}

    def _successes(self, view: View) -> Json:
        given: Given = view.__gives__  # type: ignore[attr-defined]
        schema = None if given.schema is None else self._schemas.answer(given.schema)
        more = ["ETag"] if given.etag else []
        answers = {str(given.status): self._success(given.status, schema, *more)}
        if _is_rehearsable(view):
            effect = self._schemas.answer(EffectSchema)
            if given.status == 200 and schema is not None:
                answers["200"] = self._success(200, {"oneOf": [schema, effect]})
                if given.etag:  # a rehearsal has none
                    answers["200"]["headers"]["ETag"] = HEADERS["ETag"] | {"required": False}
            else:
                answers = {"200": self._success(200, effect)} | answers
        return answers

    def _success(self, status: int, schema: Json | None, *headers: str) -> Json:
        return success(status, schema, None if schema is None else self._media(schema)["example"], *headers)

    def _media(self, schema: Json) -> Json:
        return {"schema": schema, "example": example_of(schema, self._schemas.components())}


def _is_rehearsable(view: View) -> bool:
    return getattr(view, "__rehearsable__", False)


def _needs(view: View) -> tuple[str, ...]:
    return getattr(view, "__requires__", None) or ()


def _texts(view: View) -> Json:
    """The first sentence of its docstring, or its name; then the rest, and which permissions it needs."""
    text = " ".join((inspect.getdoc(view) or view.__name__.replace("_", " ").capitalize()).split())
    summary, _, rest = text.partition(". ")
    needed = " and ".join(f"`{permission}`" for permission in _needs(view))
    sentences = [rest, f"Needs {needed}." if needed else ""]
    description = " ".join(filter(None, sentences))
    return {"summary": summary.removesuffix(".")} | ({"description": description} if description else {})


def _security(view: View) -> list[Json]:
    if not hasattr(view, "__requires__"):
        return []
    needed = list(_needs(view))
    token: list[Json] = [{"bearer": needed}, {"oauth2": needed}]
    return [{}, *token] if view.__requires__ is None else token


def _path_parameter(converter: str, name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": CONVERTERS.get(converter, TEXT)}


def _refusals(view: View, *, has_path: bool, has_match: bool) -> dict[int, list[str]]:
    """Codes by status: those of the decorators, in the order in which a request is judged; then the view's own."""
    codes: dict[int, list[str]] = {}

    def add(status: int, *more: str) -> None:
        codes.setdefault(status, []).extend(more)

    if hasattr(view, "__requires__"):
        add(400, "invalid_request")
        add(401, *(["authentication_required"] if view.__requires__ is not None else []), "invalid_token")
    if _needs(view):
        add(403, "insufficient_scope", "permission_denied")
    if hasattr(view, "__takes__"):
        add(413, "body_too_large")
        add(415, "unsupported_media_type")
    # Also without any parameter and body: unknown parameters are refused.
    add(400, "malformed_request")
    add(422, "validation_failed")
    if has_path:
        add(404, "not_found")
    if has_match:
        add(412, "precondition_failed")
    add(503, "store_unavailable", "overloaded")
    own: tuple[Refused, ...] = getattr(view, "__refuses__", ())
    for status, code in own:
        add(status, code)
    return codes
