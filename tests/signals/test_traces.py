"""Traces: which spans there are, whose trace they belong to, and that no secret is in them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.answers import granted
from tests.conftest import PASSWORD, Api, Apps
from tests.listeners import Listener
from tokenserver.app import rooms_of
from tokenserver.signals import traces
from tokenserver.storage import sql_spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def begin(self, app: Flask, *, percent: int = 100, trusts: bool = False) -> None:
        traces.begin(self.exporter, percent=percent, trusts_callers=trusts, version="1")
        sql_spans.follow(rooms_of(app).database.engine)

    def spans(self) -> list[ReadableSpan]:
        traces.flush()
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    yield Recorder()
    traces.end()


def by_name(spans: list[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


def test_spans_of_a_request(apps: Apps, api_of: Callable[[Flask], Api], recorder: Recorder):
    app = apps()
    api = api_of(app)
    api.register()
    recorder.begin(app)
    response = api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD})
    tokens = granted(response)
    spans = recorder.spans()
    found = by_name(spans)
    assert {"POST /auth/login", "redis", "sign", "hash password", "sql SELECT", "sql INSERT"} <= found.keys()
    root = found["POST /auth/login"]
    assert root.parent is None
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/auth/login",
        "http.response.status_code": 200,
        "tokenserver.request_id": response.headers["X-Request-ID"],
        "tokenserver.client_id": "first-party",
    }
    for span in spans:
        assert span.context is not None
        assert root.context is not None
        assert span.context.trace_id == root.context.trace_id
        assert span is root or span.parent is not None
    told = "".join(span.to_json() for span in spans)
    api.http.get("/healthz?next=secret-query")
    told += "".join(span.to_json() for span in recorder.spans())
    for secret in (PASSWORD, "secret-query", "ann@example.org", tokens["access_token"], tokens["refresh_token"]):
        assert secret not in told


def test_the_door_has_spans_too(apps: Apps, api_of: Callable[[Flask], Api], recorder: Recorder):
    app = apps()
    row, secret = rooms_of(app).clients.create(
        client_id="backend", client_name="B", grant_types=["client_credentials"], scope=["posts:create"]
    )
    api = api_of(app)
    recorder.begin(app)
    for _ in range(2):
        granted(api.token((row.client_id, str(secret)), grant_type="client_credentials"))
    roots = [span for span in recorder.spans() if span.parent is None]
    assert [span.name for span in roots] == ["POST /oauth/token"] * 2
    refused = api.token((row.client_id, "wrong"), grant_type="client_credentials")
    spans = recorder.spans()
    (root,) = [span for span in spans if span.parent is None]
    assert root.attributes is not None
    assert root.attributes["http.response.status_code"] == refused.status_code == 401
    assert str(secret) not in "".join(span.to_json() for span in spans)


def test_traceparent_of_trusted_proxies_alone(apps: Apps, api_of: Callable[[Flask], Api], recorder: Recorder):
    """W3C Trace Context section 3.2."""
    app = apps()
    api = api_of(app)
    recorder.begin(app, trusts=True)
    api.http.get("/healthz", headers={"traceparent": PARENT})
    (span,) = recorder.spans()
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == tuple(PARENT.split("-")[1:3])
    for broken in ("", "00-0-0-01", "ff-" + PARENT[3:], "é"):
        api.http.get("/healthz", environ_overrides={"HTTP_TRACEPARENT": broken})
        (span,) = recorder.spans()
        assert span.parent is None
    recorder.begin(app)
    api.http.get("/healthz", headers={"traceparent": PARENT})
    (span,) = recorder.spans()
    assert span.parent is None


def test_how_many_are_recorded(apps: Apps, api_of: Callable[[Flask], Api], recorder: Recorder):
    app = apps()
    api = api_of(app)
    recorder.begin(app, percent=0, trusts=True)
    for _ in range(5):
        api.http.get("/healthz")
    assert recorder.spans() == []
    api.http.get("/healthz", headers={"traceparent": PARENT})  # the caller records it
    assert len(recorder.spans()) == 1


def test_a_failure_is_marked_without_its_text(
    apps: Apps, api_of: Callable[[Flask], Api], recorder: Recorder, own_redis: Any
):
    app = apps(redis_url=own_redis.url())
    api = api_of(app)
    api.register()
    recorder.begin(app)
    own_redis.stop(kill=True)
    assert api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}).status_code == 503
    spans = recorder.spans()
    root = by_name(spans)["POST /auth/login"]
    assert root.status.status_code.name == "ERROR"
    assert PASSWORD not in "".join(span.to_json() for span in spans)
    own_redis.start()


def test_they_are_sent_to_a_collector(api: Api, recorder: Recorder, listen: Callable[..., Listener]):
    """OTLP over HTTP: a POST of protocol buffers to /v1/traces."""
    collector = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    traces.begin(traces.otlp(f"http://127.0.0.1:{collector.port}/"), percent=100, trusts_callers=False, version="1")
    api.http.get("/healthz")
    traces.flush()
    (request,) = collector.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"application/x-protobuf" in head
    assert b"GET /healthz" in body


def test_nothing_is_loaded_where_nothing_is_asked_for():
    """What redis-py itself loads, where OpenTelemetry is installed, is left out of account."""
    script = (
        "import sys, redis\n"
        "before = set(sys.modules)\n"
        "import tokenserver.app\n"
        "from tokenserver.signals import traces\n"
        "with traces.span('x'): pass\n"
        "assert traces.request('x', None) is None\n"
        "import json\n"
        "print(json.dumps(sorted(m for m in set(sys.modules) - before if m.startswith('opentelemetry'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
