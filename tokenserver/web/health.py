"""`/healthz`: this process answers. `/readyz`: it could serve; if not, what is missing."""

from collections.abc import Callable, Mapping

from flask import Blueprint, Response

from tokenserver.errors import TokenserverError
from tokenserver.web.wire import json_response


def blueprint(checks: Mapping[str, Callable[[], object]], is_draining: Callable[[], bool]) -> Blueprint:
    """`checks`: name of a part → a call that raises when the part is missing."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/readyz")
    def readyz() -> Response:
        missing = []
        for name, check in checks.items():
            try:
                check()
            except TokenserverError:
                missing.append(name)
        status = "not ready" if missing else "draining" if is_draining() else "ok"
        response = json_response({"status": status, "missing": missing}, 200 if status == "ok" else 503)
        if status != "ok":
            response.headers["Retry-After"] = "1"
        return response

    return routes
