"""Log lines: one object or one line each, everybody's, and none that was made by somebody else."""

import json
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from select import PIPE_BUF
from typing import Any

import pytest

from tokenserver.signals import lines, logs
from tokenserver.web import request_context
from tokenserver.web.request_context import RequestContext

FORGED = "a\r\n2026-01-01T00:00:00.000Z ERROR forged\x1b[2J\x85\u2028\x00"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Written = Callable[[], list[str]]


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What came out on stderr since the last call, line by line."""
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, threading.excepthook
    yield lambda: capfd.readouterr().err.split("\n")[:-1]
    root.handlers[:] = handlers
    root.setLevel(level)
    threading.excepthook = hook
    logging.captureWarnings(False)
    lines.configure("", "")


def told(**options: Any) -> None:
    usual: dict[str, Any] = {
        "method": "GET",
        "path": "/a",
        "status": 200,
        "seconds": 0.0012,
        "outcome": "success",
        "at": 0.0,
    }
    usual |= dict.fromkeys(("error", "request_id", "actor", "client_id", "address"))
    lines.write([lines.request(**usual | options)])


def test_json_has_the_fields_of_the_manual(written: Written):
    logs.configure("json", "info", lambda: {"request_id": "r" * 8, "actor": "ann"})
    logging.getLogger("tokenserver.test").warning("%d entries", 3, extra={"url": "http://x", "event": "forged"})
    logging.getLogger("sqlalchemy.pool").error("theirs")
    logging.getLogger("tokenserver.test").debug("not asked for")
    (ours, theirs) = map(json.loads, written())
    assert list(ours)[:4] == ["time", "level", "logger", "event"]
    assert TIME.fullmatch(ours.pop("time"))
    assert isinstance(ours.pop("pid"), int)
    assert ours == {
        "level": "warning",
        "logger": "tokenserver.test",
        "event": "3 entries",
        "url": "http://x",
        "request_id": "r" * 8,
        "actor": "ann",
        "node": logs.NODE,
    }
    assert (theirs["logger"], theirs["level"], theirs["event"]) == ("sqlalchemy.pool", "error", "theirs")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_nothing_forges_a_line(written: Written, log_format: str):
    """OWASP ASVS 16.4.1."""
    logs.configure(log_format, "info", lambda: {"actor": FORGED})
    logger = logging.getLogger("tokenserver.test")
    logger.info("said: %s", FORGED)
    logger.info("with %s", "a field", extra={"field": FORGED})
    told(method=FORGED, path=FORGED, actor=FORGED, client_id=FORGED)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception("failed")
    found = written()
    if log_format == "json":
        assert [json.loads(line)["level"] for line in found] == ["info", "info", "info", "error"]
    else:
        begun = [line for line in found if not line.startswith("  | ")]
        assert [line.split()[1] for line in begun] == ["INFO", "INFO", "INFO", "ERROR"]
        assert all(TIME.match(line) and line.isprintable() for line in begun)
    assert not [line for line in found if line.startswith("2026-01-01")]
    assert all(line.isprintable() for line in found)


def test_a_request_is_one_object(written: Written):
    logs.configure("json", "info")
    told(
        status=401,
        outcome="refused",
        error="invalid_token",
        request_id="r" * 8,
        address="::1",
        path="/" + "é" * 999,
    )
    told()
    refused, fine = map(json.loads, written())
    assert (refused["status"], refused["outcome"], refused["error"]) == (401, "refused", "invalid_token")
    assert (refused["request_id"], refused["address"], refused["duration_ms"]) == ("r" * 8, "::1", 1.2)
    assert refused["path"] == "/" + "é" * 254
    assert (fine["actor"], fine["error"], fine["event"]) == (None, None, "request")
    assert fine.keys() == refused.keys()


def test_lines_of_many_requests_are_written_whole_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """A pipe takes PIPE_BUF bytes as one (POSIX): other processes write into it, too."""
    written: list[bytes] = []
    monkeypatch.setattr(lines.os, "write", lambda _, portion: written.append(portion))
    told = [b"%d" % number * size + b"\n" for number in range(10) for size in (1, 900, PIPE_BUF - 1, 2 * PIPE_BUF)]
    lines.write(told)
    assert b"".join(written) == b"".join(told)
    assert all(portion.endswith(b"\n") for portion in written)
    assert all(len(portion) <= PIPE_BUF or portion in told for portion in written)
    written.clear()
    lines.write([b"a" * 99 + b"\n"] * 100)
    assert len(written) == 3
    lines.write([b"", b""])
    assert len(written) == 3


def test_the_line_of_a_request_has_a_level(written: Written):
    for level, count in (("warning", 0), ("info", 1)):
        logs.configure("json", level)
        request_context.answered(RequestContext(method="GET"), 200, "/a")
        assert len(written()) == count


def test_what_python_warns_of_and_what_ends_a_thread(written: Written):
    logs.configure("json", "info")
    logs.catch_the_uncaught()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)

    def fail() -> None:
        raise KeyError("k")

    thread = threading.Thread(target=fail, name="chore")
    thread.start()
    thread.join()
    warning, ended = map(json.loads, written())
    assert (warning["logger"], warning["level"]) == ("py.warnings", "warning")
    assert "soon gone" in warning["event"]
    assert (ended["event"], ended["level"]) == ("thread chore ended", "critical")
    assert ended["exception"].startswith("Traceback")


def test_times(monkeypatch: pytest.MonkeyPatch):
    assert lines.rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert lines.rfc3339(1795788288.999) == "2026-11-27T14:04:48.999Z"
    assert lines.rfc3339(1795788289.0015) == "2026-11-27T14:04:49.001Z"
