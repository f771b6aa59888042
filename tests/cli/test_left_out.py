"""Packages that others load wherever they are installed: not while they are left out, and as ever afterwards."""

import importlib
import json
import sys

import pytest

from tokenserver.cli.left_out import left_out

ANY = "this"  # of the standard library; nobody loads it


def test_what_is_left_out_is_missing_until_the_end(capsys: pytest.CaptureFixture[str]):
    with left_out(ANY), pytest.raises(ImportError):
        importlib.import_module(ANY)
    with pytest.raises(ZeroDivisionError), left_out(ANY):
        1 / 0  # noqa: B018
    assert ANY not in sys.modules
    assert importlib.import_module(ANY)
    assert capsys.readouterr().out
    del sys.modules[ANY]


def test_what_is_loaded_already_stays():
    with left_out("json"):
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json
