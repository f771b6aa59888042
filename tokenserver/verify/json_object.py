"""A JSON object read so that no two readers can differ about it (RFC 7493, RFC 7515 section 4)."""

import json
from typing import Any, Final, NoReturn

MAX_BRACKETS: Final = 512


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7515 section 4, RFC 7519 section 4: member names are unique; a parser that takes the first "aud" and one
    # that takes the last would read two tokens.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member name")
    return members


def _no_constant(_name: str) -> NoReturn:
    # RFC 8259 section 6: NaN and Infinity are not JSON, though Python reads them.
    raise ValueError("NaN or Infinity")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def json_object(text: bytes) -> dict[str, Any]:
    """ValueError for anything but one JSON object in UTF-8."""
    # RFC 8259 section 9 lets a parser bound the depth; it can't be larger than the number of brackets.
    if text.count(b"{") + text.count(b"[") > MAX_BRACKETS:
        raise ValueError("nested too deep")
    try:
        # RFC 8259 section 8.1: UTF-8 alone; json.loads(bytes) would guess UTF-16 and UTF-32 too.
        value = _DECODER.decode(text.decode())
    except RecursionError:
        # Of the caller's making: hardly any stack was left.
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one exception for all bad input
    return value
