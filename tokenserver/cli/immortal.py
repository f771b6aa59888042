"""Objects that are never freed, so that nobody counts their references (PEP 683).

Python counts references in the objects themselves: whoever uses one writes to it, and its page is no longer shared
with other processes. Since Python 3.12 some objects are immortal, such as None: their count stands for "for ever",
and nobody changes it. Python has no function that makes others so.
"""

import ctypes
import gc
import sys
from types import CodeType
from typing import Any, Final

# Of which it is known how they count: in the first four bytes of an object. 3.11 knows no immortal ones.
VERSIONS: Final = ((3, 12), (3, 13))


def make_immortal() -> None:
    """All that the garbage collector knows of, and what that refers to; nothing in other versions of Python. Takes
    0.3 s for 300,000 objects.
    """
    for_ever = sys.getrefcount(None)
    if sys.version_info[:2] not in VERSIONS or _count_of(None).value != for_ever:  # without the GIL it is elsewhere
        return
    found = gc.get_objects()
    while found:
        # The list holds them: what is freed meanwhile would be written to.
        for each in found:
            _count_of(each).value = for_ever
        referents = gc.get_referents(*found)
        for each in found:
            if type(each) is CodeType:
                referents += _parts_of(each)
        found = list({id(each): each for each in referents if sys.getrefcount(each) < for_ever}.values())


def _count_of(each: Any) -> ctypes.c_uint32:
    """The number of its references."""
    return ctypes.c_uint32.from_address(id(each))


def _parts_of(code: CodeType) -> tuple[Any, ...]:
    """The collector isn't told of them, since they can't be part of a cycle."""
    return (
        *(code.co_consts, code.co_names, code.co_linetable, code.co_exceptiontable),
        *(code.co_filename, code.co_name, code.co_qualname),
    )
