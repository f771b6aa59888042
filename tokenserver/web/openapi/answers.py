"""Answers as OpenAPI describes them: headers, bodies with an example, and every refusal with its codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tokenserver import errors
from tokenserver.verify import errors as verify
from tokenserver.web.openapi.schemas import Json
from tokenserver.web.problems import HTTP_DETAILS, STATUS, phrase

REQUEST_ID: Final = "0f8fad5bd9cb469fa16570867728950e"
HEADERS: Final[dict[str, Json]] = {
    "X-Request-ID": {
        "description": "Names this request in the server's log; a request may bring its own.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{8,64}$"},
        "example": REQUEST_ID,
    },
    "ETag": {
        "description": "The version of what is answered (RFC 9110 section 8.8.3).",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]+"$'},
        "example": '"9f86d081884c7d659a2feaa0c55ad015"',
    },
    "Cache-Control": {
        "description": "For how long the answer may be used again.",
        "required": True,
        "schema": {"type": "string"},
        "example": "public, max-age=300",
    },
    "Retry-After": {
        "description": "Seconds after which a retry makes sense.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
        "example": 1,
    },
    "WWW-Authenticate": {
        "description": "How to authenticate (RFC 9110 section 11.6.1).",
        "required": True,
        "schema": {"type": "string", "pattern": '^(Bearer|Basic) realm="'},
        "example": 'Bearer realm="api"',
    },
}
PROBLEM: Final[Json] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable, `detail` is for people, `errors` are the wrong fields.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
KNOWN: Final = (
    errors.StoreUnavailable,
    errors.Overloaded,
    errors.TooManyRequests,
    errors.Invalid,
    errors.NotFound,
    errors.PreconditionFailed,
    errors.MetricsClosed,
)
SENTENCES: Final = {
    **{kind.code: kind.public for kind in KNOWN},
    "malformed_request": HTTP_DETAILS[400],
    "body_too_large": HTTP_DETAILS[413],
    "unsupported_media_type": HTTP_DETAILS[415],
    "authentication_required": verify.MissingCredentials.description,
    **{
        kind.error: kind.description
        for kind in (verify.InvalidRequest, verify.InvalidToken, verify.InsufficientScope)
    },
}


def headers(*names: str) -> Json:
    """X-Request-ID, which every answer has, and these."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def success(status: int, schema: Json | None, example: Any = None, *more_headers: str) -> Json:
    """`schema` None: an answer without content."""
    answer: Json = {"description": phrase(status), "headers": headers(*more_headers)}
    if schema is not None:
        answer["content"] = {"application/json": {"schema": schema, "example": example}}
    return answer


def refusal(
    status: int, codes: Sequence[str], schema: Json, media_type: str, example: Callable[[str], Json]
) -> Json:
    more = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
    examples = {code: {"value": example(code)} for code in codes}
    return {
        "description": phrase(status),
        "headers": headers(*([more] if more else [])),
        "content": {media_type: {"schema": schema, "examples": examples}},
    }


class Problems:
    """The refusals of the REST side, each set of codes described once; `responses` are their components."""

    def __init__(self) -> None:
        self.responses: dict[str, Json] = {}

    def of(self, codes: Mapping[int, Sequence[str]]) -> Json:
        """By status; references."""
        return {str(status): self._of_status(status, codes[status]) for status in sorted(codes)}

    def _of_status(self, status: int, codes: Sequence[str]) -> Json:
        known = list(dict.fromkeys(codes))
        name = f"{status}.{'.'.join(known)}"
        self.responses[name] = problem(status, known)
        return {"$ref": f"#/components/responses/{name}"}


def problem(status: int, codes: Sequence[str]) -> Json:
    narrowed: Json = {"properties": {"status": {"const": status}, "code": {"enum": list(codes)}}}
    if status == 422:
        narrowed["required"] = ["errors"]
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, narrowed]}
    return refusal(status, codes, schema, "application/problem+json", lambda code: _problem(status, code))


def _problem(status: int, code: str) -> Json:
    usual = next((kind.public for kind, its in STATUS if its == status), "")
    body: Json = {
        "type": f"urn:tokenserver:problem:{code}",
        "title": phrase(status),
        "status": status,
        "detail": SENTENCES.get(code, usual),
        "instance": "/users/me",
        "code": code,
        "request_id": REQUEST_ID,
    }
    if status == 422:
        body["errors"] = [{"field": "limit", "message": "A whole number from 1 to 100."}]
    return body
