"""`/admin/keys`: the ring without its private parts, and its rotation."""

from dataclasses import replace

import pytest

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, Apps, bearer


@pytest.fixture
def settings(settings, tmp_path):
    """A ring of its own, whose next key is ready at once."""
    return replace(settings, keys_dir=tmp_path / "keys", signing_alg="ES256", jwks_max_age=0)


@pytest.fixture
def apps(settings):
    made = Apps(settings)
    yield made
    made.close()


@pytest.fixture
def ready(app, rooms, monkeypatch):
    rooms.keys.ensure("ES256")
    monkeypatch.setattr("tokenserver.tokens.key_lifecycle.SKEW", -2)


@pytest.fixture
def admin(api, ready):
    return bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])


def keys(api, admin):
    return granted(api.http.get("/admin/keys", headers=admin))["items"]


def test_the_ring_without_private_parts(api, admin):
    items = keys(api, admin)
    assert sorted(item["state"] for item in items) == ["active", "next"]
    assert {item["alg"] for item in items} == {"ES256"}
    assert items[0].keys() == {
        "kid",
        "alg",
        "state",
        "created_at",
        "published_at",
        "activated_at",
        "retired_at",
        "remove_after",
    }


def test_rotation(api, admin, rooms):
    before = {item["state"]: item["kid"] for item in keys(api, admin)}
    answer = granted(api.http.post("/admin/keys/rotate", headers=admin))
    assert [entry["kid"] for entry in answer["activated"]] == [before["next"]]
    assert answer["replaced"] == [before["active"]]
    after = {item["kid"]: item["state"] for item in keys(api, admin)}
    assert after[before["next"]] == "active"
    assert after[before["active"]] == "retired"
    # The token of before is still good, and a new one is by the new key.
    assert api.login("admin", ADMIN_PASSWORD)["access_token"]
    log = granted(api.http.get("/admin/logs?action=signing_key:rotated", headers=admin))["items"]
    assert [(item["target"], item["details"]) for item in log] == [
        (before["next"], {"replaced": [before["active"]]})
    ]


def test_dry_run_changes_nothing(api, admin):
    before = keys(api, admin)
    answer = granted(api.http.post("/admin/keys/rotate?dry_run=true", headers=admin))
    assert answer == {"dry_run": True, "user_count": 0, "session_count": 0, "users": [], "clients": []}
    assert keys(api, admin) == before


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_next_key_that_verifiers_may_not_know(api, admin, monkeypatch, query):
    monkeypatch.setattr("tokenserver.tokens.key_lifecycle.SKEW", 60)
    refused(api.http.post(f"/admin/keys/rotate{query}", headers=admin), 409, "next_key_too_young")


def test_only_who_may(api, ready):
    user = bearer(api.signed_in()["access_token"])
    refused(api.http.get("/admin/keys", headers=user), 403, "insufficient_scope")
    refused(api.http.post("/admin/keys/rotate", headers=user), 403, "insufficient_scope")
