"""A bounded cache of rows that this process read, kept right by the change feed."""

import threading
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Holds at most `size` values; the oldest leave first.

    A value that was read from SQL before a change and stored after it would stay wrong for ever. So a reader takes
    `ticket()` before it reads, and `put` drops the value when anything was dropped meanwhile.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[K, V] = {}
        self._drops = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        return self._values.get(key)

    def ticket(self) -> int:
        return self._drops

    def put(self, key: K, value: V, ticket: int) -> None:
        with self._lock:
            if ticket != self._drops:
                return
            while len(self._values) >= self._size:
                del self._values[next(iter(self._values))]
            self._values[key] = value

    def drop(self, key: K) -> None:
        with self._lock:
            self._drops += 1
            self._values.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._drops += 1
            self._values = {}
