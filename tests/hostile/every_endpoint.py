"""Every endpoint that an application has, so that no new one is forgotten by what must hold for all."""

from collections.abc import Iterator

from flask import Flask

NOBODY = "7b0f6a52-9d5b-4a3e-8f0a-0d7f5f3b2c1d"


def every_endpoint(app: Flask) -> Iterator[tuple[str, str]]:
    """Path and method; a UUID of nothing stands for each part of a path that isn't fixed."""
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        parts = dict.fromkeys(rule.arguments, NOBODY)
        for method in sorted(set(rule.methods or ()) - {"HEAD", "OPTIONS"}):
            yield adapter.build(rule.endpoint, parts, method=method), method
