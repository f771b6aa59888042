"""The shape of a request to a token-like endpoint: a form in the body, each parameter once."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from tokenserver.oauth.errors import InvalidRequest

MAX_PARAMETERS: Final = 50
# RFC 8707 section 2 and RFC 8693 section 2.1: these alone may be repeated. Neither holds a space; spaces part them.
REPEATABLE: Final = frozenset({"resource", "audience"})


def parse_form(body: bytes, content_type: str, query: str, most: int = MAX_PARAMETERS) -> dict[str, str]:
    """Raises InvalidRequest.

    RFC 6749 section 3.2: parameters sent without a value are treated as if they were omitted, and none may be
    included more than once; section 2.3.1: credentials never in the URI, so nothing is taken from there.
    """
    if query:
        raise InvalidRequest("Parameters belong into the body.")
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidRequest("Send application/x-www-form-urlencoded.")
    return _parse(body, most)


def parse_query(query: bytes) -> dict[str, str]:
    """For endpoints that a browser is sent to (RFC 6749 section 3.1). Raises InvalidRequest."""
    return _parse(query)


def _parse(encoded: bytes, most: int = MAX_PARAMETERS) -> dict[str, str]:
    try:
        text = encoded.decode("ascii")
        fields = text.split("&") if text else []
        if len(fields) > most:
            raise ValueError
        pairs = [_pair(field) for field in fields]
    except ValueError:
        raise InvalidRequest from None
    return unique(pairs)


def _pair(field: str) -> tuple[str, str]:
    """As `parse_qsl` reads it when it is strict, for a third of the time."""
    name, is_pair, value = field.partition("=")
    if not is_pair:
        raise ValueError
    return _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    text = text.replace("+", " ")
    return unquote(text, errors="strict") if "%" in text else text


def unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Each parameter once, empty ones left out; of `REPEATABLE` the values with spaces between them. Raises
    InvalidRequest."""
    parameters: dict[str, str] = {}
    seen = set()
    for name, value in pairs:
        if name in seen and name not in REPEATABLE:
            raise InvalidRequest("A parameter is repeated.")
        seen.add(name)
        # PostgreSQL can't hold NUL, and no parameter of any grant may.
        if "\0" in value or "\0" in name:
            raise InvalidRequest
        if value and name in REPEATABLE:
            if " " in value:
                raise InvalidRequest
            parameters[name] = f"{parameters[name]} {value}" if name in parameters else value
        elif value:
            parameters[name] = value
    return parameters
