"""What can't be read off decorators, since it is no REST: other rooms hand in theirs, the web's own is here."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tokenserver.web.openapi.answers import headers, problem, success
from tokenserver.web.openapi.schemas import Json

TAG: Final = "server"


class Described(NamedTuple):
    """`operations`: by path and method. `schemas`, `security_schemes`: components that they name."""

    operations: Mapping[tuple[str, str], Json]
    schemas: Mapping[str, Json]
    security_schemes: Mapping[str, Json]


def published(summary: str, schema: Json, example: Any) -> Json:
    """An operation: a document for everybody, which may be cached and asked for again by its ETag."""
    cached = ("ETag", "Cache-Control")
    return {
        "summary": summary,
        "security": [],
        "responses": {
            "200": success(200, schema, example, *cached),
            "304": {"description": "Not Modified", "headers": headers(*cached)},
        },
    }


def _health(summary: str, *statuses: str, missing: bool) -> Json:
    properties: Json = {"status": {"enum": list(statuses)}}
    if missing:
        properties["missing"] = {"type": "array", "items": {"type": "string"}, "description": "Parts, by name."}
    schema: Json = {"type": "object", "required": list(properties), "properties": properties}
    if missing:
        properties["parts"] = {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "A sentence on each part, for those who may read the metrics.",
        }
    fine: Json = {"status": "ok"} | ({"missing": []} if missing else {})
    answers = {"200": success(200, schema, fine)}
    if missing:
        answers["503"] = success(503, schema, {"status": "not ready", "missing": ["redis"]}, "Retry-After")
    return {"summary": summary, "tags": [TAG], "security": [], "responses": answers}


METRICS: Final[Json] = {
    "summary": "Read the metrics of this node",
    "description": "In the text format of Prometheus, or as OpenMetrics where that is asked for.",
    "tags": [TAG],
    "security": [],
    "responses": {
        "200": {
            "description": "OK",
            "headers": headers(),
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "tokenserver_workers 2.0\n"}},
        },
        "401": problem(401, ["metrics_token_required"]),
    },
}
OWN: Final[dict[tuple[str, str], Json]] = {
    ("/healthz", "get"): _health("Say that this process answers", "ok", missing=False),
    ("/readyz", "get"): _health("Say whether requests can be served", "ok", "not ready", "draining", missing=True),
    ("/metrics", "get"): METRICS,
    ("/openapi.json", "get"): {"tags": [TAG]}
    | published(
        "Read this description",
        {"type": "object", "required": ["openapi", "paths"]},
        {"openapi": "3.1.0", "paths": {}},
    ),
}
