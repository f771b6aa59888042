"""A span for each SQL statement: its text, in which values are placeholders; never the values."""

from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from tokenserver.signals import traces

LONGEST: Final = 1000


def follow(engine: Engine) -> None:
    """From now on, while there are traces."""

    def begin(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: FBT001 - SQLAlchemy's
        attributes = {"db.system.name": engine.dialect.name, "db.query.text": statement[:LONGEST]}
        word = statement.lstrip().partition(" ")[0].upper()[:20]
        entered = context.tokenserver_span = traces.span(f"sql {word}", attributes)
        entered.__enter__()

    def end(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: FBT001
        context.tokenserver_span.__exit__(None, None, None)

    def failed(failure: ExceptionContext) -> None:
        entered = getattr(failure.execution_context, "tokenserver_span", None)
        if entered is not None:
            entered.__exit__(None, None, None)

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", failed)
