"""The style sheet, the script and the icon of the pages, under addresses that change with their content."""

import functools
import hashlib
from importlib.resources import files
from typing import Final

from flask import Blueprint, Response, abort, request

ASSETS: Final = {"pages.css": "text/css", "icon.svg": "image/svg+xml", "passkeys.js": "text/javascript"} | {
    "admin.css": "text/css",
    "log.js": "text/javascript",
}
YEAR: Final = 31_536_000


def address(name: str) -> str:
    return f"/pages/{name}?v={_version(name)}"


def blueprint() -> Blueprint:
    routes = Blueprint("assets", __name__)

    @routes.get("/pages/<name>")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            abort(404)
        response = Response(_content(name), mimetype=ASSETS[name])
        is_named = request.args.get("v") == _version(name)
        response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable" if is_named else "no-cache"
        response.set_etag(_version(name))
        response.make_conditional(request)
        return response

    return routes


@functools.cache
def _content(name: str) -> bytes:
    return files(__package__).joinpath("static", name).read_bytes()


@functools.cache
def _version(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:12]
