"""What this server writes as JSON."""

import json
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

import pytest

from tokenserver.compact_json import to_json


class Pair(NamedTuple):
    one: int
    two: str


class Word(StrEnum):
    YES = "yes"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, 1.5]}, '{"b":1,"a":[true,null,1.5]}'),
        ('ü\u2028\0"', '"ü\u2028\\u0000\\""'),
        (Pair(1, "x"), '[1,"x"]'),
        (MappingProxyType({"m": MappingProxyType({})}), '{"m":{}}'),
        (Word.YES, '"yes"'),
        (UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (253_402_300_799, "253402300799"),
    ],
)
def test_it_is_compact_and_utf_8(value, text):
    assert to_json(value).decode() == text
    json.loads(text)


def test_a_lone_surrogate_is_no_reason_to_fail():
    """Nothing in UTF-8 stands for one (RFC 8259 section 8.2)."""
    assert to_json({"a\udc80": ["\ud800", Pair(1, "\udfff"), UUID(int=7)]}) == (
        b'{"a?":["?",[1,"?"],"00000000-0000-0000-0000-000000000007"]}'
    )


def test_what_has_no_form_in_json_is_refused():
    with pytest.raises(TypeError):
        to_json({"a": {1, 2}})
