"""Threads for what may wait, so many and no more."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def in_turn(application: "WSGIApplication", count: int) -> "WSGIApplication":
    """It is called `count` times at once, at the most; bodies are short, and wait for nobody."""
    turns = threading.Semaphore(count)

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with turns:
            return application(environ, start_response)

    return answer


class Crew:
    """Up to `size` threads, started when they are needed, for work in the order of its coming."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._work: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wanted = threading.Semaphore(0)
        self._threads = self._free = 0

    def give(self, work: Callable[..., None], *arguments: Any) -> None:
        """`work` raises nothing. Raises RuntimeError where the system has no thread left."""
        with self._lock:
            if self._free:
                self._free -= 1
            elif self._threads < self._size:
                name = f"{self._name} {self._threads + 1}"
                threading.Thread(target=self._labour, name=name, daemon=True).start()
                self._threads += 1
            self._work.append((work, arguments))
        self._wanted.release()

    def _labour(self) -> None:
        while True:
            self._wanted.acquire()
            work, arguments = self._work.popleft()
            work(*arguments)
            del work, arguments
            with self._lock:
                self._free += 1
