"""docs/rfc-map.md names what is there, and forgets no standard."""

import ast
import re
from functools import cache

import pytest

from tests.docs.fences import ROOT, read

MAP = ROOT / "docs" / "rfc-map.md"
CITATION = re.compile(r"RFCs? ([0-9]{4})")
ROW = re.compile(
    r"^\| (?P<clause>[^|]*[0-9][^|]*) \| [^|]+ \| (?P<modules>`[^|]+`) \| (?P<tests>`[^|]+`) \|$", re.MULTILINE
)
CODE = re.compile(r"`([^`]+)`")


def rows():
    return [
        (match["clause"], CODE.findall(match["modules"]), CODE.findall(match["tests"]))
        for match in ROW.finditer(read(MAP))
    ]


def standards(clause):
    """Those that a row is about, also in `RFC 7493, 8259 §6`."""
    oidc = {"OIDC Core"} if "OIDC Core" in clause else set()
    return oidc | set(re.findall(r"(?<![\d.§])([0-9]{4})(?![\d.])", clause))


def citations(path):
    """RFC numbers, and OpenID Connect Core."""
    text = read(path)
    oidc = ["OIDC Core"] if re.search("OIDC Core|OpenID Connect Core", text) else []
    return CITATION.findall(text) + oidc


@cache
def functions(path):
    """Names of the test functions of a file, in classes too."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def cited():
    """Standards that the code cites, each with the modules that do."""
    found = {}
    for path in sorted((ROOT / "tokenserver").rglob("*.py")):
        for standard in citations(path):
            found.setdefault(standard, []).append(path.relative_to(ROOT / "tokenserver").as_posix())
    return found


def test_every_line_of_a_table_is_understood():
    lines = [line for line in read(MAP).splitlines() if line.startswith("|")]
    assert len(rows()) == len(lines) - 2 * lines.count("| clause | rule | module | test |") > 40


@pytest.mark.parametrize(("clause", "modules", "tests"), rows(), ids=[tests[0] for _, _, tests in rows()])
def test_a_row_is_true(clause, modules, tests):
    for module in modules:
        assert (ROOT / "tokenserver" / module).is_file(), f"{clause}: no module {module}"
    known = {standard for module in modules for standard in citations(ROOT / "tokenserver" / module)}
    assert standards(clause) & known, f"{clause} is not cited in {', '.join(modules)}"
    for test in tests:
        path, _, function = test.rpartition("::")
        assert (ROOT / "tests" / path).is_file(), f"{clause}: no file {path}"
        assert function in functions(path), f"{clause}: no test {test}"


def test_no_standard_is_forgotten():
    mapped = set().union(*(standards(clause) for clause, _, _ in rows()))
    words = set(re.findall(r"RFC ([0-9]{4})", read(MAP).partition("## Cited as a source of words")[2]))
    missing = {name: where for name, where in cited().items() if name not in mapped | words}
    assert not missing, "these need a row in docs/rfc-map.md"
    assert words <= cited().keys()
