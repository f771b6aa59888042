"""The server's own description of its API, for the generators of docs/: no store is asked."""

from collections.abc import Iterator
from typing import Any

from tokenserver.app import create_app, rooms_of
from tokenserver.config import Settings


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method in capitals, and the operation as OpenAPI has it."""
    app = create_app(Settings())
    try:
        paths = app.test_client().get("/openapi.json").get_json()["paths"]
    finally:
        rooms_of(app).database.engine.dispose()
        rooms_of(app).store.close()
    for path, item in paths.items():
        for method, operation in item.items():
            if "responses" in operation:
                yield path, method.upper(), operation
