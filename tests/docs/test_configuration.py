"""The manual and the example are generated from the settings, and both are true."""

import importlib.util
import re
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType

import pytest

from tokenserver.config import Settings, environment_name

ROOT = Path(__file__).parents[2]
STALE = "is out of date: run `make docs-generated`"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_configuration", ROOT / "docs" / "generate_configuration.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_manual_is_what_the_settings_say(generator):
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == generator.manual(), STALE


def test_the_example_is_what_the_settings_say(generator):
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == generator.example(), STALE


@pytest.mark.parametrize("file", ["docs/configuration.md", ".env.example"])
def test_every_option_is_named_once(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    form = r"^\| `(TOKENSERVER_\w+)` \|" if file.endswith(".md") else r"^# (TOKENSERVER_\w+)="
    assert re.findall(form, text, re.MULTILINE) == [environment_name(option) for option in fields(Settings)]


def test_the_example_shows_the_defaults(tmp_path, monkeypatch):
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    dotenv = tmp_path / "example"
    dotenv.write_text("\n".join(line.removeprefix("# ") for line in lines if line.startswith("# TOKENSERVER_")))
    monkeypatch.chdir(tmp_path)
    shown, default = asdict(Settings.load({}, dotenv)), asdict(Settings())
    # The default of this one is filled in where the first admin is made.
    assert shown.pop("admin_email") == "admin@localhost"
    assert default.pop("admin_email") == ""
    assert shown == default
