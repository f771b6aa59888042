"""What the HTTP server and the application say to each other of usual requests (docs/adr/0039).

WSGI describes each request and each answer anew. Of what is asked most, nearly all is the same again and again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

Fields = Sequence[tuple[str, str]]
# `storage.aside.afterwards`, or the same of whoever isn't in a task of its own.
Afterwards = Callable[[Callable[[Sequence[Any]], None], Any], None]


class Kept(NamedTuple):
    """What many answers begin with: the same object, for as long as it is the same."""

    status: str
    fields: Fields


class Answer(NamedTuple):
    """`fields`: of the header, of this answer alone. The fields say the length of the body, where it has one."""

    kept: Kept
    fields: Fields
    body: bytes


class Usual(Protocol):
    """A request that was found to be usual. It is answered each time that its bytes come again."""

    @property
    def is_read(self) -> bool:
        """Whether what it says is known, so that nobody needs its body any more."""

    def answer(self) -> Answer: ...

    def at_once(self, afterwards: Afterwards) -> Answer | None:
        """The same, where that waits for nothing and can't fail; else None: `answer` is to be called."""
