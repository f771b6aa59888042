"""docs/threat-model.md names tests that exist, and leaves no line without one, or without a reason."""

import re

import pytest

from tests.docs.fences import ROOT, read
from tests.docs.test_rfc_map import functions

MODEL = ROOT / "docs" / "threat-model.md"
TEST = re.compile(r"`([a-z0-9_/]+\.py::\w+)`")
ROW = re.compile(r"^\| (?!---)(.+) \|$", re.MULTILINE)
CELLS = 4


def rows(part):
    """The rows of the tables of a part, without their heads."""
    found = [[cell.strip() for cell in match[1].split("|")] for match in ROW.finditer(part)]
    return [row for row in found if row[-1] != "shown by"]


def threats():
    return rows(read(MODEL).partition("\n## Who attacks")[2].partition("\n## Advisories\n")[0])


def advisories():
    return rows(read(MODEL).partition("\n## Advisories\n")[2].partition("\n## Do the tests bite?")[0])


@pytest.mark.parametrize("row", [*threats(), *advisories()], ids=lambda row: row[0][:40])
def test_a_line_is_shown_by_tests_that_exist(row):
    assert len(row) == CELLS, row
    tests = TEST.findall(row[3])
    assert tests
    for test in tests:
        path, _, function = test.partition("::")
        assert (ROOT / "tests" / path).is_file(), f"no file {path}"
        assert function in functions(path), f"no test {test}"


def test_every_attack_has_an_answer():
    assert len(threats()) > 40
    assert all(row[1] for row in threats())


def test_every_advisory_says_what_it_means_here():
    named = re.findall(r"CVE-\d{4}-\d+|GHSA(?:-\w{4}){3}|PYSEC-\d{4}-\d+|GO-\d{4}-\d+", str(advisories()))
    assert len(named) > 100
    assert len(named) == len(set(named)), "one is in two rows"
    assert all(row[1] and row[2] for row in advisories())


def test_those_of_the_sources_are_in_the_table():
    """An advisory that a test or a comment names."""
    pattern = re.compile(r"CVE-20\d{2}-\d+|GHSA(?:-[a-z0-9]{4}){3}|PYSEC-\d{4}-\d+")
    named = set()
    for folder in ("tests", "tokenserver"):
        for path in (ROOT / folder).rglob("*.py"):
            named |= set(pattern.findall(read(path)))
    assert named <= set(pattern.findall(read(MODEL)))
