"""How a request waits for a store (docs/adr/0031), and for others that want the same (docs/adr/0035).

In a thread of its own it just waits. Where a loop answers many in one thread, the request is put aside meanwhile,
and the loop goes on with others. Nothing may be put aside while it holds a lock: the next one to want it would stop
the thread that has to go on. So what asks a store under a lock does all of that `elsewhere`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class Together(Protocol):
    """What is cheaper for many at once than for one after the other."""

    def exchange(self, items: Sequence[Any], /) -> list[Any]:
        """An answer to each, in their order."""


class Loop(Protocol):
    """Of the thread that it is called in, by a request that goes on when there is an answer."""

    def ask(self, together: Together, item: Any) -> Any:
        """The answer to an item that is exchanged with those of the others. Raises what `exchange` raises."""

    def elsewhere(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises in a thread that may wait."""

    def afterwards(self, handle: Callable[[Sequence[T]], None], item: T) -> None:
        """`handle` gets it once the answer is on its way, with all that others have for it."""


class Aside(greenlet):
    """A request that can be put aside."""

    loop: Loop


def loop() -> Loop | None:
    """None in a thread that may wait itself."""
    current = getcurrent()
    return current.loop if isinstance(current, Aside) else None


def elsewhere(work: Callable[[], T]) -> T:
    """`work()`, in a thread that may wait."""
    here = loop()
    return work() if here is None else here.elsewhere(work)


def afterwards(handle: Callable[[Sequence[T]], None], item: T) -> None:
    """What nobody waits for: `handle` gets the item at once in a thread, and in a loop when the answer is on its
    way, with all that others have for it."""
    here = loop()
    if here is None:
        handle([item])
    else:
        here.afterwards(handle, item)
