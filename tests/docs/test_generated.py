"""What is generated of docs/ is what the sources say, and no code is without advice."""

import importlib
import subprocess
import sys

import pytest

from tests.docs.fences import ROOT, read


def test_nothing_is_out_of_date():
    command = [sys.executable, ROOT / "docs" / "generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def errors():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module("generate_errors")


@pytest.mark.parametrize(("table", "code"), [("REST", "account_disabled"), ("OAUTH", "invalid_grant")])
def test_a_code_needs_advice(errors, monkeypatch, table, code):
    monkeypatch.delitem(getattr(errors, table), code)
    with pytest.raises(SystemExit, match=code):
        errors.document()


@pytest.mark.parametrize("table", ["REST", "OAUTH"])
def test_advice_needs_a_code(errors, monkeypatch, table):
    monkeypatch.setitem(getattr(errors, table), "no_such_code", "Nothing.")
    with pytest.raises(SystemExit, match="no_such_code"):
        errors.document()


@pytest.mark.parametrize("document", ["errors.md", "roles.md"])
def test_no_cell_is_empty_that_should_not_be(document):
    text = read(ROOT / "docs" / document).partition("\n## Routes\n" if document == "roles.md" else "\n## REST\n")[2]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []
