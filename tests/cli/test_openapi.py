"""`tokenserver openapi`: the description of the API, without a running server."""

import json
import sys

import pytest

from tests.cli.conftest import Deployment
from tokenserver.web.openapi import described


def test_it_prints_what_a_server_with_these_settings_answers(empty: Deployment):
    printed = empty.run("openapi", ISSUER="https://id.example").data
    assert printed["openapi"] == "3.1.0"
    assert printed["servers"] == [{"url": "https://id.example"}]
    assert {"/users", "/oauth/token", "/healthz"} <= printed["paths"].keys()


def test_it_needs_neither_stores_nor_keys_and_makes_nothing(empty: Deployment):
    away = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    assert empty.run("openapi", **away).data["paths"]
    assert list(empty.folder.iterdir()) == []


def test_it_writes_into_a_file(empty: Deployment):
    done = empty.run("openapi", "--output", "api.json")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert json.loads((empty.folder / "api.json").read_text()) == empty.run("openapi").data
    assert empty.refused("openapi", "--output", "nowhere/api.json") == "nowhere/api.json: No such file or directory"


def test_the_check_says_nothing_when_all_is_well(empty: Deployment):
    done = empty.run("openapi", "--check")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_check_says_what_is_wrong_and_where(empty: Deployment, monkeypatch: pytest.MonkeyPatch):
    broken = {"summary": "x", "responses": {"200": {"headers": {}}}}
    monkeypatch.setitem(described.OWN, ("/healthz", "get"), broken)
    said = empty.refused("openapi", "--check")
    assert said.startswith("the description is not valid OpenAPI: paths//healthz/get/responses/200")


def test_the_check_needs_the_validator(empty: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openapi_spec_validator", None)
    assert empty.refused("openapi", "--check") == "--check needs the extra: tokenserver[lint]"
