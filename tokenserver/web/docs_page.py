"""Swagger UI at `/docs`: files of the package `flask-swagger-ui`, and nothing from anywhere else."""

import functools
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, abort, request

# All that the page may do (CSP level 3): its own scripts and styles, and requests to this server.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
DIST: Final = Path(str(files("flask_swagger_ui"))) / "dist"
ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
YEAR: Final = 31_536_000
# A file of its own, so that no inline script has to be allowed. Addresses are relative: the issuer may have a path.
INIT: Final = """\
"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Token server API</title>
<link rel="icon" href="docs/favicon-32x32.png?v={version}">
<link rel="stylesheet" href="docs/swagger-ui.css?v={version}">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; the description is at <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js?v={version}"></script>
<script src="docs/init.js?v={version}"></script>
</body>
</html>
"""


def blueprint() -> Blueprint:
    routes = Blueprint("docs", __name__)

    @routes.get("/docs")
    def page() -> Response:
        response = Response(PAGE.format(version=_version()), mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @routes.get("/docs/<name>")
    def asset(name: str) -> Response:
        if name == "init.js":
            response = Response(INIT, mimetype="text/javascript")
        elif name in ASSETS:
            response = Response((DIST / name).read_bytes(), mimetype=ASSETS[name])
        else:
            abort(404)
        # A new version has a new address.
        is_named = request.args.get("v") == _version()
        response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable" if is_named else "no-cache"
        response.set_etag(_version())
        response.make_conditional(request)
        return response

    return routes


@functools.cache
def _version() -> str:
    """Of all files together."""
    return hashlib.sha256((DIST / "VERSION").read_bytes() + INIT.encode()).hexdigest()[:12]
