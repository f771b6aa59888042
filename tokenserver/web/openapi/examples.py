"""An example of every body and answer, made from its JSON Schema; one that the schema has comes first."""

from collections.abc import Mapping
from typing import Any, Final

from tokenserver.web.openapi.schemas import Json

UUID: Final = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
MOMENT: Final = "2026-01-31T09:30:00+00:00"
FORMATS: Final = {"uuid": UUID, "date-time": MOMENT}
# What a member of this name holds, or an item of the list of this name.
WORDS: Final[dict[str, Any]] = {
    "access_token": "eyJ…",
    "action": "user:created",
    "activated": "NzbLsXh8uDCcd7MNwXF4W",
    "actor": UUID,
    "adds": "users:read",
    "address": "203.0.113.7",
    "alg": "RS256",
    "audience": "https://api.example",
    "body": "It has been a quiet day.",
    "client_id": "backend",
    "client_name": "A back end",
    "client_secret": "cs_…",
    "client_secret_expires_at": 0,
    "client_id_issued_at": 1_769_851_800,
    "code": "not_found",
    "count": 12,
    "current_password": "correct horse 7 battery",
    "email": "ann@example.org",
    "endpoint": "GET /users",
    "error": "invalid_request",
    "expires_in": 300,
    "gains": "users:read",
    "grant_type": "password",
    "grant_types": "client_credentials",
    "granted_by": UUID,
    "granted_by_name": "admin",
    "kid": "NzbLsXh8uDCcd7MNwXF4W",
    "login": "ann",
    "loses": "users:list",
    "method": "GET",
    "name": "Ann",
    "next_cursor": None,
    "outcome": "success",
    "password": "correct horse 7 battery",
    "path": "/users",
    "permission": "posts:create",
    "permissions": "posts:create",
    "reason": "insufficient_scope",
    "redirect_uris": "https://app.example/callback",
    "refresh_token": "rt_…",
    "request_id": "0f8fad5bd9cb469fa16570867728950e",
    "resource": f"/posts/{UUID}",
    "role": "premium",
    "roles": "user",
    "scope": "posts:create",
    "status": "active",
    "target": UUID,
    "title": "Monday",
    "token_type": "Bearer",
    "user_agent": "curl/8.5.0",
    "username": "ann",
    "window": "24h",
}


def example_of(schema: Json, components: Mapping[str, Json], name: str = "") -> Any:
    """`name`: of the member that the schema describes."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].rpartition("/")[2]], components, name)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            return example_of(schema[keyword][0], components, name)
    kinds = schema.get("type", "string")
    kind = kinds if isinstance(kinds, str) else next(each for each in kinds if each != "null")
    if kind == "object" and "properties" not in schema:
        return schema.get("default", {})
    if kind == "object":
        return {key: example_of(value, components, key) for key, value in schema["properties"].items()}
    if kind == "array":
        known = name in WORDS or schema["items"].keys() - {"type", "maxLength"}
        return [example_of(schema["items"], components, name)] if known else []
    return _simple(schema, kind, name)


def _simple(schema: Json, kind: str, name: str) -> Any:
    if name in WORDS:
        return WORDS[name]
    if "default" in schema:
        return schema["default"]
    if kind == "boolean":
        return True
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    return FORMATS.get(schema.get("format", "")) or (MOMENT if name.endswith("_at") else name or "text")
