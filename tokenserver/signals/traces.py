"""Traces by OpenTelemetry, where the extra `otel` is installed and a collector is named; else a span is nothing.
Nothing of OpenTelemetry is imported then.

Spans carry words of the code and the request id: no parameter of SQL, no query of a URL, no token, no address.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

Attributes = Mapping[str, str | int]
NOTHING: Final[AbstractContextManager[Any]] = nullcontext()


class _State:
    provider: "TracerProvider | None" = None
    tracer: "Tracer | None" = None
    trusts_callers = False


_state = _State()


class NotInstalled(Exception):
    """The extra is missing."""


def otlp(url: str) -> "SpanExporter":
    """To a collector, by OTLP over HTTP. `url`: without the path. Raises NotInstalled."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise NotInstalled from None
    return OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces")


def begin(exporter: "SpanExporter", *, percent: int, trusts_callers: bool, version: str) -> None:
    """For this process. `percent`: of the traces that begin here. `trusts_callers`: go on with traces of callers
    (W3C Trace Context), and do as they say about recording."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource.create({"service.name": "tokenserver", "service.version": version})
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(percent / 100)), resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _state.provider = provider
    _state.trusts_callers = trusts_callers
    _state.tracer = provider.get_tracer("tokenserver", version)


def end() -> None:
    """Spans are nothing again; those that were recorded are sent."""
    _state.tracer = None
    if _state.provider is not None:
        _state.provider.shutdown()


def flush() -> None:
    """Send what was recorded until now."""
    if _state.provider is not None:
        _state.provider.force_flush()


def is_on() -> bool:
    return _state.tracer is not None


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[Any]:
    """Within whatever span this thread is in."""
    tracer = _state.tracer
    if tracer is None:
        return NOTHING
    return tracer.start_as_current_span(name, attributes=attributes, record_exception=False)


class RequestSpan:
    """Of a request, from its arrival to its answer."""

    def __init__(self, tracer: "Tracer", name: str, traceparent: str | None) -> None:
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = context.Context()
        if traceparent and _state.trusts_callers:
            parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, parent)
        self._span: Span = tracer.start_span(name, parent, SpanKind.SERVER)
        self._token = context.attach(set_span_in_context(self._span, parent))

    def end(self, attributes: Attributes, *, failed: bool) -> None:
        from opentelemetry import context
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        context.detach(self._token)


def request(name: str, traceparent: str | None) -> RequestSpan | None:
    """`name`: method and path template. None while there are no traces."""
    return None if _state.tracer is None else RequestSpan(_state.tracer, name, traceparent)
