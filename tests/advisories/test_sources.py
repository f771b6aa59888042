"""What the sources don't do: reasons that docs/threat-model.md gives for advisories that can't apply here."""

import ast
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest
from flask import Flask

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "wsgi.py", *sorted((ROOT / "tokenserver").rglob("*.py"))]
# All that runs of each library that makes or reads tokens elsewhere. Their parsers of JWTs, their grants and their
# checks of requests aren't among it, so flaws of those aren't ours.
OF_TOKEN_LIBRARIES = {
    "authlib.oauth2.rfc7636.create_s256_code_challenge",
    "joserfc.errors.JoseError",
    "joserfc.jwe",
    "joserfc.jwk.ECKey",
    "joserfc.jwk.OKPKey",
    "joserfc.jwk.RSAKey",
    "joserfc.jws.JWSRegistry",
    "joserfc.jwt",
    "joserfc.util.urlsafe_b64decode",
    "joserfc.util.urlsafe_b64encode",
}
# What reads code, or objects that run some, out of bytes.
RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "jsonpickle",
    "yaml",
    "joblib",
}


@cache
def nodes() -> tuple[tuple[Path, ast.AST], ...]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    return tuple((path, node) for path, tree in trees.items() for node in ast.walk(tree))


# A process of `serve` and its child, over a pipe that nobody else has (docs/adr/0028-loader.md).
AMONG_THEMSELVES = {"cli/loader.py"}


def imported(*, but_by: Collection[str] = ()) -> set[str]:
    """The full name of everything that is imported, relative imports aside."""
    found = set()
    for path, node in nodes():
        if path.as_posix().endswith(tuple(but_by)):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_what_runs_of_the_libraries_for_tokens():
    of_them = {
        name for name in imported() if name.split(".")[0] in {"authlib", "joserfc", "jwt", "jose", "jwcrypto"}
    }
    assert of_them == OF_TOKEN_LIBRARIES


def test_nothing_that_is_read_can_run():
    """Flask-Caching CVE-2021-33026: pickles in Redis."""
    found = {name for name in imported(but_by=AMONG_THEMSELVES) if name.split(".")[0] in RUNS_WHAT_IT_READS}
    assert found == set()
    called = {node.func.id for _, node in nodes() if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert called >= {"len", "str"}


def test_chance_that_can_be_foreseen_decides_how_long_to_wait_and_nothing_else():
    """django-oauth-toolkit #1734: user codes came from `random`."""
    used = {
        (path.name, node.attr)
        for path, node in nodes()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    }
    assert {name for _, name in used} == {"uniform", "SystemRandom"}
    assert not {name for name in imported() if name.startswith("random.")}


def test_one_place_compares_passwords():
    """So its limits count for every way to sign in: Keycloak CVE-2026-9798, where one of them skipped the lock."""
    places = {
        path.relative_to(ROOT).as_posix()
        for path, node in nodes()
        if isinstance(node, ast.Attribute) and node.attr == "verify" and "passwords" in ast.unparse(node.value)
    }
    assert places == {"tokenserver/identity/login.py"}


@pytest.mark.parametrize("backend", ["sqlite"])
def test_flask_signs_nothing(app: Flask):
    """Flask GHSA-4grg-w6v8-c28g: there is no session of Flask's, so no key of it, nor a former one."""
    assert app.secret_key is None
    assert not app.config["SECRET_KEY_FALLBACKS"]
    assert not {name for name in imported() if name in {"flask.session", "flask.sessions"}}
