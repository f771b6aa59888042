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
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from tokenserver.signals import lines
from tokenserver.signals.left_out import left_out

with left_out("rich"):  # for a console that we don't use, 6 MB
    import structlog
    from structlog.typing import EventDict

NODE: Final = platform.node()
# Of a line, in this order; what else there is follows.
FIRST: Final = ("time", "level", "logger", "event")
Who = Callable[[], Mapping[str, Any]]


def configure(log_format: str, level: str, who: Who = dict) -> None:
    """For this process. `log_format`: json or text. `who`: of the request that the line belongs to."""
    render = render_json if log_format == "json" else render_text
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[_dated, _asking(who), structlog.processors.format_exc_info, render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
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


def _dated(_logger: Any, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog", None)
    event["time"] = lines.rfc3339(record.created)
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    return event


def _asking(who: Who) -> Callable[[Any, str, EventDict], EventDict]:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        for name, value in who().items():
            event.setdefault(name, value)
        event["node"] = NODE
        event["pid"] = os.getpid()
        return event

    return add


def render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    ordered = {name: event.pop(name) for name in FIRST}
    return json.dumps(ordered | dict(event), default=str, separators=(",", ":"))


def render_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """A traceback follows, each of its lines behind a bar."""
    time, level, logger, text = (str(event.pop(name)) for name in FIRST)
    traceback = str(event.pop("exception", ""))
    del event["node"], event["pid"]
    fields = "".join(f" {name}={value}" for name, value in event.items())
    first = f"{time} {level.upper()} {logger} {lines.printable(text + fields)}"
    return "\n".join([first, *(f"  | {lines.printable(line)}" for line in traceback.splitlines())])
