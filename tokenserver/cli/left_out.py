"""What other packages load wherever they are used, and nobody here has a use for.

It is left out while the program is being loaded: what is thrown away later leaves gaps in the pages that workers
share, and who fills one has the page for itself.
"""

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import SourceFileLoader
from inspect import CO_OPTIMIZED
from types import CodeType, ModuleType
from typing import Final

# An instruction that takes a function's first constant, which is its docstring if there is one.
TAKING_THE_FIRST: Final = [bytes((number, 0)) for number in dis.hasconst if number < 256]


@contextmanager
def without_packages(*packages: str) -> Iterator[None]:
    """As if they weren't installed, for whoever asks inside; those that are loaded already are there."""
    missing = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type] # the import system's word for "isn't there"
    try:
        yield
    finally:
        for package in missing:
            sys.modules.pop(package, None)


@contextmanager
def without_docstrings(*, but_of: str) -> Iterator[None]:
    """Modules that are loaded inside have none, as with `python -OO`; those of the package `but_of` do."""
    get_code, exec_module = SourceFileLoader.get_code, SourceFileLoader.exec_module

    def is_bare(name: str) -> bool:
        return name.partition(".")[0] != but_of

    def get_bare_code(self: SourceFileLoader, name: str) -> CodeType | None:
        code = get_code(self, name)
        return _bare(code) if code is not None and is_bare(name) else code

    def exec_bare_module(self: SourceFileLoader, module: ModuleType) -> None:
        exec_module(self, module)
        if is_bare(module.__name__):
            _forget_docstrings(module)

    SourceFileLoader.get_code = get_bare_code  # type: ignore[method-assign, assignment]
    SourceFileLoader.exec_module = exec_bare_module  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]


def _bare(code: CodeType) -> CodeType:
    """Its functions, and theirs, without docstrings."""
    before = code.co_consts
    constants = tuple(_bare(each) if type(each) is CodeType else each for each in before)
    if code.co_flags & CO_OPTIMIZED and type(before[0] if before else None) is str:
        instructions = code.co_code
        if not any(taking in instructions for taking in TAKING_THE_FIRST):
            constants = (" ", *constants[1:])
    if all(each is old for each, old in zip(constants, before, strict=True)):
        return code
    return code.replace(co_consts=constants)


def _forget_docstrings(module: ModuleType) -> None:
    module.__doc__ = " "
    for each in list(vars(module).values()):
        if isinstance(each, type) and each.__module__ == module.__name__ and type(vars(each).get("__doc__")) is str:
            with suppress(AttributeError, TypeError):  # a class that lets nobody change it
                each.__doc__ = " "
