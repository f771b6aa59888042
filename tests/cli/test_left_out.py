"""What others load wherever they are used: not while it is left out, and as ever afterwards."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenserver.cli.left_out import without_docstrings, without_packages

ANY = "this"  # of the standard library; nobody loads it


def test_what_is_left_out_is_missing_until_the_end(capsys: pytest.CaptureFixture[str]):
    with without_packages(ANY), pytest.raises(ImportError):
        importlib.import_module(ANY)
    with pytest.raises(ZeroDivisionError), without_packages(ANY):
        1 / 0  # noqa: B018
    assert ANY not in sys.modules
    assert importlib.import_module(ANY)
    assert capsys.readouterr().out
    del sys.modules[ANY]


def test_what_is_loaded_already_stays():
    with without_packages("json"):
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json


FOREIGN = '''"""Of a module."""


def plain(number):
    """Of a function."""
    return number + 1


def itself():
    "a word"
    return "a word"


def silent():
    return "nothing said"


class Thing:
    """Of a class."""

    def method(self):
        """Of a method."""

        def inner():
            """Of an inner function."""

        return inner
'''


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "foreign_module"
    (tmp_path / f"{name}.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def docstrings(module: Any) -> list[str]:
    documented = (module, module.plain, module.Thing, module.Thing.method, module.Thing().method())
    return [str(each.__doc__) for each in documented]


def test_docstrings_are_left_out_and_nothing_else(foreign: str):
    with without_docstrings(but_of="tokenserver"):
        module = importlib.import_module(foreign)
    assert set(docstrings(module)) == {" "}  # and not none at all: SQLAlchemy insists on one
    assert module.plain(2) == 3
    assert module.itself() == module.itself.__doc__ == "a word"
    assert (module.silent(), module.silent.__doc__) == ("nothing said", None)


@pytest.mark.parametrize("when", ["of the package that keeps them", "afterwards"])
def test_docstrings_stay(foreign: str, when: str):
    with without_docstrings(but_of=foreign if when != "afterwards" else "tokenserver"):
        if when != "afterwards":
            importlib.import_module(foreign)
    module = importlib.import_module(foreign)
    assert docstrings(module)[:2] == ["Of a module.", "Of a function."]
    assert docstrings(module)[-1] == "Of an inner function."
