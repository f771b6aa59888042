"""The 100,000 most common passwords of eight characters or more; common_passwords.md says where they come from.

A record is the start of a SHA-256 digest, and the file is sorted: the list is looked up where it lies, in memory
that all processes share.
"""

import functools
import hashlib
import mmap
from bisect import bisect_left
from pathlib import Path
from typing import Final

from tokenserver.identity.names import folded

FILE: Final = Path(__file__).with_name("common_passwords.bin")
# 40 bits: of 11 million passwords that are not on the list, one is taken for one of it.
RECORD: Final = 5


def is_common(password: str) -> bool:
    """In any spelling that `names.folded` takes for the same: the list is folded too."""
    records, record = _records(), record_of(folded(password))
    count = len(records) // RECORD
    at = bisect_left(range(count), record, key=lambda index: records[index * RECORD : (index + 1) * RECORD])
    return records[at * RECORD : (at + 1) * RECORD] == record


def record_of(password: str) -> bytes:
    """`password`: folded."""
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()[:RECORD]


@functools.cache
def _records() -> mmap.mmap:
    with FILE.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
