"""`/metrics`: the node's metrics, in the text format of Prometheus or as OpenMetrics."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from tokenserver.errors import MetricsClosed
from tokenserver.signals import shared
from tokenserver.signals.instruments import REGISTRY

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class Sums:
    """Of all processes of the node; of this one, where they share no folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def collect(self) -> "Iterable[Metric]":
        if self._folder is not None:
            return shared.collect(self._folder)
        REGISTRY.settle()
        return REGISTRY.of_process().collect()


class Asked:
    """What is looked up when somebody asks."""

    def __init__(self, ask: "Callable[[], Iterable[Metric]]") -> None:
        self.collect = ask


def blueprint(
    folder: Path | None, ask: "Callable[[], Iterable[Metric]]", is_insider: Callable[[], bool]
) -> Blueprint:
    """`ask`: for what the stores know, of the whole deployment."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def metrics() -> Response:
        if not is_insider():
            raise MetricsClosed
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        for collector in (Sums(folder), Asked(ask)):
            registry.register(collector)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        encoder: Any = encode
        response = Response(encoder(registry), content_type=content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes
