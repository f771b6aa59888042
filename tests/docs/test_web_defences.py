"""docs/web-defences.md names tests that exist."""

import re

import pytest

from tests.docs.fences import ROOT, read
from tests.docs.test_rfc_map import functions

TEST = re.compile(r"`([a-z0-9_/]+\.py)::(\w+)`")
RULES = re.findall(
    r"^\| (\d.+) \|$", read(ROOT / "docs" / "web-defences.md").partition("## What shows it")[2], re.MULTILINE
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[:30])
def test_a_rule_is_shown_by_tests_that_exist(rule):
    tests = TEST.findall(rule)
    assert tests
    assert [f"{path}::{name}" for path, name in tests if name not in functions(path)] == []


def test_no_rule_is_lost():
    assert len(RULES) > 20
