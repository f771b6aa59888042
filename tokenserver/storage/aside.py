"""How a request waits for a store (docs/adr/0031).

In a thread of its own it just waits. Where a loop answers many in one thread, the request is put aside meanwhile,
and the loop goes on with others. Nothing may be put aside while it holds a lock: the next one to want it would stop
the thread that has to go on. So what asks a store under a lock does all of that `elsewhere`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from tokenserver.storage.round_trips import RoundTrips

T = TypeVar("T")


class Loop(Protocol):
    """Of the thread that it is called in, by a request that goes on when there is an answer."""

    def ask(self, trips: "RoundTrips", command: bytes) -> Any:
        """The reply to a packed command, which goes out with those of the others. Raises what the trip raises."""

    def elsewhere(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises in a thread that may wait."""


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
