"""Log lines: whoever logs does it by the standard library's `logging`, ours and others' alike, and all of it comes
out here, on stderr, as one JSON object a line or as lines for people.

What came from outside can't forge a line: in JSON by its escapes, in text by the same.
"""

import json
import logging
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from tokenserver.signals import lines

NODE: Final = platform.node()
# What every record has; the rest was given to it (`extra`).
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
Who = Callable[[], Mapping[str, Any]]


def configure(log_format: str, level: str, who: Who = dict) -> None:
    """For this process. `log_format`: json or text. `who`: of the request that the line belongs to."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(render_json if log_format == "json" else render_text, who))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    lines.configure(log_format, NODE)


def catch_the_uncaught() -> None:
    """What ends a thread, or the process, is logged, too."""

    def in_thread(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_type is not SystemExit and failure.exc_value is not None:
            name = failure.thread.name if failure.thread else "?"
            logging.getLogger("tokenserver").critical("thread %s ended", name, exc_info=failure.exc_value)

    threading.excepthook = in_thread


class _Formatter(logging.Formatter):
    """By hand: structlog, made for more than this, takes 4 MB in the process that owns the workers (ADR 0036)."""

    def __init__(self, render: Callable[[dict[str, Any]], str], who: Who) -> None:
        super().__init__()
        self._render = render
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        first = {
            "time": lines.rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        given = {name: value for name, value in vars(record).items() if name not in STANDARD}
        told = {**first, **self._who(), **given, **first, "node": NODE, "pid": os.getpid()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return self._render(told)


def render_json(told: dict[str, Any]) -> str:
    return json.dumps(told, default=str, separators=(",", ":"))


def render_text(told: dict[str, Any]) -> str:
    """A traceback follows, each of its lines behind a bar."""
    time, level, logger, text = (str(told.pop(name)) for name in ("time", "level", "logger", "event"))
    traceback = str(told.pop("exception", ""))
    del told["node"], told["pid"]
    fields = "".join(f" {name}={value}" for name, value in told.items())
    first = f"{time} {level.upper()} {logger} {lines.printable(text + fields)}"
    return "\n".join([first, *(f"  | {lines.printable(line)}" for line in traceback.splitlines())])
