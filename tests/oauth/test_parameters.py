"""Forms are read as `urllib.parse.parse_qsl` reads them when it is strict."""

from contextlib import suppress
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.parameters import MAX_PARAMETERS, parse_query, unique

PIECES = st.sampled_from(
    ["a", "bc", "=", "&", "+", "%", "%41", "%c3%a9", "%C3", "%2", "%zz", "%00", ";", " ", "\x7f", "é"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("")
@example("a=b&")
@example("a+b=c+d%2Be+")
@example("a=%c3")
@example("&".join(f"a{number}=" for number in range(MAX_PARAMETERS)))
@example("&".join(f"a{number}=" for number in range(MAX_PARAMETERS + 1)))
def test_forms_are_those_of_parse_qsl(text: str):
    encoded, expected = text.encode(), None
    with suppress(ValueError, InvalidRequest):
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(encoded),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
        expected = unique(pairs)
    if expected is None:
        with pytest.raises(InvalidRequest):
            parse_query(encoded)
    else:
        assert parse_query(encoded) == expected
