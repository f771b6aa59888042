"""docs/conformance.md names tests that are there, and forgets no module of the plans."""

import ast
import json
import re
from functools import cache

import pytest

from tests.docs.fences import ROOT, marked, read
from tests.oidc.suite import PERSON
from tokenserver.clients.metadata import RESPONSE_TYPES
from tokenserver.identity import claim_values

DOCUMENT = ROOT / "docs" / "conformance.md"
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
ROW = re.compile(r"^\| (?P<what>.+) \| (?P<tests>`test_[^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
MODULE = re.compile(r"`(oidcc-[A-Za-z0-9-]+)`")
LOGOUT = "oidcc-rp-initiated-logout"
# Of the suite's plans beside Basic, whose modules are numbered.
MODULES = {
    "Config": {"oidcc-discovery-endpoint-verification"},
    "Dynamic": {
        "oidcc-idtoken-rs256",
        "oidcc-idtoken-unsigned",
        "oidcc-userinfo-rs256",
        "oidcc-ensure-redirect-uri-in-authorization-request",
        "oidcc-redirect-uri-query-OK",
        "oidcc-redirect-uri-query-mismatch",
        "oidcc-redirect-uri-query-added",
        "oidcc-redirect-uri-regfrag",
        "oidcc-discovery-endpoint-verification",
        "oidcc-server",
        "oidcc-registration-logo-uri",
        "oidcc-registration-policy-uri",
        "oidcc-registration-tos-uri",
        "oidcc-registration-jwks-uri",
        "oidcc-registration-sector-uri",
        "oidcc-registration-sector-bad",
        "oidcc-server-rotate-keys",
        "oidcc-refresh-token-rp-key-rotation",
        "oidcc-request-uri-unsigned",
        "oidcc-request-uri-signed-rs256",
        "oidcc-ensure-request-object-with-redirect-uri",
        "oidcc-refresh-token",
        "oidcc-ensure-client-assertion-with-iss-aud-succeeds",
    },
    "Form post": set(),
    "Hybrid and implicit": {"oidcc-ensure-request-without-nonce-fails"},
    "Logout": {
        f"{LOGOUT}-discovery-endpoint-verification",
        LOGOUT,
        f"{LOGOUT}-no-state",
        f"{LOGOUT}-bad-post-logout-redirect-uri",
        f"{LOGOUT}-query-added-to-post-logout-redirect-uri",
        f"{LOGOUT}-modified-id-token-hint",
        f"{LOGOUT}-bad-id-token-hint",
        f"{LOGOUT}-no-id-token-hint",
        f"{LOGOUT}-no-params",
        f"{LOGOUT}-only-state",
        f"{LOGOUT}-no-post-logout-redirect-uri",
        "oidcc-backchannel-rp-initiated-logout",
        "oidcc-frontchannel-rp-initiated-logout",
        "oidcc-session-management-rp-initiated-logout",
    },
    "Third-party-initiated login": {"oidcc-3rdparty-init-login"},
}


def sections():
    parts = SECTION.split(read(DOCUMENT))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text):
    return [(match["what"], TEST.findall(match["tests"])) for match in ROW.finditer(text)]


@cache
def functions(file):
    tree = ast.parse((ROOT / "tests" / "oidc" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_is_there():
    named = [each for _, tests in rows(read(DOCUMENT)) for each in tests]
    assert len(named) > 100
    assert not [f"{file}::{name}" for file, name in named if name not in functions(file)]


def test_every_line_of_a_table_of_modules_is_understood():
    for name in ("In every module", "Basic", *MODULES):
        lines = [line for line in sections()[name].splitlines() if line.startswith("|")]
        assert len(rows(sections()[name])) == len(lines) - 2 > 0, name


def test_every_numbered_module_of_basic_has_the_test_that_is_named_after_it():
    found = rows(sections()["Basic"])
    assert [what.partition(" ")[0] for what, _ in found] == [str(number) for number in range(1, 39)]
    for what, tests in found:
        [module] = MODULE.findall(what)
        assert tests == [("test_basic.py", f"test_{module.replace('-', '_')}")]


@pytest.mark.parametrize("section", MODULES)
def test_every_module_of_the_other_plans_has_a_row(section):
    found = {module for what, tests in rows(sections()[section]) if tests for module in MODULE.findall(what)}
    assert found == MODULES[section]


def test_no_test_of_a_module_is_forgotten():
    named = {name for _, tests in rows(read(DOCUMENT)) for _, name in tests}
    files = {path.name for path in (ROOT / "tests" / "oidc").glob("test_*.py")}
    assert {name for file in files for name in functions(file) if name.startswith("test_oidcc_")} <= named
    assert functions("test_every_module.py") - named == {"test_checks_can_fail"}


def test_examples_of_user_client_and_plan_are_good():
    claims = json.loads(marked(DOCUMENT, "claims: json"))
    assert claims == PERSON
    assert not claim_values.faults(claims)
    client = json.loads(marked(DOCUMENT, "client: json"))
    assert {" ".join(sorted(each.split())) for each in client["response_types"]} == set(RESPONSE_TYPES)
    plan = json.loads(marked(DOCUMENT, "plan: json"))
    commands = re.findall(r"\['\w+', 'id', '([\w-]+)'", str(plan))
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tokenserver" / "pages").rglob("*.html"))
    for element in set(commands) - {"submission_complete"}:
        # `field` of forms.html makes the id of a field's name.
        assert f'id="{element}"' in pages or f'form.field("{element}"' in pages, element
