"""The description of the API (OpenAPI 3.1), made from the routes of the application at its first request.

`operations` reads views by their decorators, `schemas` what they take and give, `answers` how they refuse;
`examples` fills in, and `described` holds what has no decorators.
"""

import functools
import hashlib
from importlib.metadata import metadata
from typing import Any, Final

from apispec import APISpec
from flask import Blueprint, Flask, Response, current_app, json, request
from werkzeug.routing import Rule

from tokenserver.web.openapi.answers import HEADERS, PROBLEM, Problems
from tokenserver.web.openapi.described import OWN, Described
from tokenserver.web.openapi.operations import Operations
from tokenserver.web.openapi.schemas import VERSION, Schemas
from tokenserver.web.request_context import path_template

METHODS: Final = ("get", "post", "put", "patch", "delete")
MAX_AGE: Final = 300
DESCRIPTION: Final = (
    "Errors are problem details (RFC 9457) with a stable `code`; below `/oauth/` they are those of RFC 6749. "
    "Unknown parameters and members are refused. Lists come in pages: `next_cursor` of one is `cursor` of the next."
)


def blueprint(issuer: str, described: Described) -> Blueprint:
    routes = Blueprint("openapi", __name__)

    @functools.cache
    def rendered() -> tuple[bytes, str]:
        body = json.dumps(document(current_app, issuer, described)).encode()
        return body, hashlib.sha256(body).hexdigest()[:32]

    @routes.get("/openapi.json")
    def read() -> Response:
        body, etag = rendered()
        response = Response(body, mimetype="application/json")
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE}"
        response.headers["Access-Control-Allow-Origin"] = "*"  # it holds what everybody may read
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.set_etag(etag)
        response.make_conditional(request)
        return response

    return routes


def document(app: Flask, issuer: str, described: Described) -> dict[str, Any]:
    package = metadata("tokenserver")
    spec = APISpec(
        "Token server",
        package["Version"],
        VERSION,
        info={"summary": package["Summary"], "description": DESCRIPTION},
        servers=[{"url": issuer}],
    )
    problems, schemas = Problems(), Schemas()
    for path, operations in _paths(app, described, Operations(schemas, problems)).items():
        spec.path(path, operations={method: operations[method] for method in METHODS if method in operations})
    for name, schema in (schemas.components() | {"Problem": PROBLEM} | dict(described.schemas)).items():
        spec.components.schema(name, schema)
    for name, response in sorted(problems.responses.items()):
        spec.components.response(name, response)
    for name, header in HEADERS.items():
        spec.components.header(name, header)
    for name, scheme in described.security_schemes.items():
        spec.components.security_scheme(name, scheme)
    return spec.to_dict()


def _paths(app: Flask, described: Described, reader: Operations) -> dict[str, dict[str, Any]]:
    """Operations by path and method, in the order in which the routes were registered."""
    routes = [
        (rule, method, app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        for method in _methods(rule)
    ]
    with_version = set()
    for rule, _, view in routes:
        if hasattr(view, "__gives__"):
            reader.announce(view)
            if view.__gives__.etag:
                with_version.add(rule.rule)
    paths: dict[str, dict[str, Any]] = {}
    known = OWN | dict(described.operations)
    for rule, method, view in routes:
        path = path_template(rule.rule)
        if hasattr(view, "__gives__"):
            operation = reader.operation(view, method.upper(), rule.rule, versioned=rule.rule in with_version)
        elif (path, method) in known:
            operation = known[path, method]
        else:
            continue  # a page, for people
        name = rule.endpoint if len(_methods(rule)) == 1 else f"{rule.endpoint}.{method}"
        names = {"operationId": name, "tags": [path.strip("/.").partition("/")[0]]}
        paths.setdefault(path, {})[method] = names | operation
    return paths


def _methods(rule: Rule) -> list[str]:
    return [method for method in METHODS if method.upper() in (rule.methods or ())]
