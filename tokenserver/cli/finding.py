"""What a check of `doctor` says."""

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

Status = Literal["ok", "warning", "fault"]

INIT: Final = "run `tokenserver init`"


class Finding(NamedTuple):
    """`detail`: what is so. `remedy`: what to do, empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


class Check(NamedTuple):
    """`patience`: seconds that it may take. `remedy`: what to do when it fails in a way that it doesn't expect."""

    name: str
    look: Callable[[], Iterator[Finding]]
    remedy: str
    patience: float = 15
