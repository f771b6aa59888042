"""Random bytes for ids, from the kernel's generator, many at a time.

Each call of `os.urandom` lets go of the interpreter lock, and another thread wakes up for nothing; a request makes
two or three ids. For ids alone: what must stay secret (tokens, keys, codes) comes from `secrets`, so that it never
lies in memory before it is there.
"""

import os
from typing import Final

SIZE: Final = 16
MANY: Final = 256

_ready: list[bytes] = []  # its pop is atomic
# A forked process would give the same ids as its parent.
os.register_at_fork(after_in_child=_ready.clear)


def random_bytes() -> bytes:
    """16 of them, never given before."""
    try:
        return _ready.pop()
    except IndexError:
        many = os.urandom(SIZE * MANY)
        _ready.extend(many[start : start + SIZE] for start in range(SIZE, SIZE * MANY, SIZE))
        return many[:SIZE]
