"""`/healthz`: this process answers. `/readyz`: it could serve; if not, what is missing."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flask import Blueprint, Response

from tokenserver.web.wire import json_response


class Part(NamedTuple):
    """Of what a node needs. `detail`: a sentence for operators; it may name a store's error, never a secret."""

    name: str
    is_missing: bool
    detail: str


def blueprint(
    parts: Callable[[], Iterable[Part]], is_draining: Callable[[], bool], is_insider: Callable[[], bool]
) -> Blueprint:
    """`is_insider`: whether the one who asks gets the details, too; everybody gets the words."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/readyz")
    def readyz() -> Response:
        found = list(parts())
        missing = [part.name for part in found if part.is_missing]
        status = "not ready" if missing else "draining" if is_draining() else "ok"
        body: dict[str, Any] = {"status": status, "missing": missing}
        if is_insider():
            body["parts"] = {part.name: part.detail for part in found}
        response = json_response(body, 200 if status == "ok" else 503)
        if status != "ok":
            response.headers["Retry-After"] = "1"
        return response

    return routes
