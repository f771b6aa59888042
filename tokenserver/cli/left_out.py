"""Packages that others load wherever they are installed, and that nobody here has a use for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def left_out(*packages: str) -> Iterator[None]:
    """As if they weren't installed, for whoever asks inside; those that are loaded already are there."""
    missing = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type] # the import system's word for "isn't there"
    try:
        yield
    finally:
        for package in missing:
            sys.modules.pop(package, None)
