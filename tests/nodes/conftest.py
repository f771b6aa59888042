"""Two nodes of two worker processes each, on one PostgreSQL, one Redis and one ring of keys."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Databases
from tests.live_server import ADMIN_PASSWORD, LiveServer, sharing
from tests.redis_servers import SHARED, TOPOLOGY

PATIENCE = 30.0
HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=30, trust_env=False, verify=False)
# Enough connections that surely each worker of a node gets one.
EVERY_WORKER = 12


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)


@pytest.fixture(scope="session")
def stores(databases: Databases) -> Iterator[dict[str, str]]:
    """Settings that nodes have in common. They run on while other tests empty the Redis that those share."""
    with SHARED[TOPOLOGY]() as servers:
        yield {
            "database_url": databases.empty("postgresql"),
            "redis_url": servers.url(),
            "signing_alg": "EdDSA",
            # A slow machine may take a while until a client has found the other node.
            "refresh_grace": "60",
            "drain_delay": "2",
        }


@pytest.fixture(scope="session")
def running(stores: dict[str, str]) -> Iterator[list[LiveServer]]:
    with sharing(2, **stores) as made:
        yield made


@pytest.fixture
def nodes(running: list[LiveServer]) -> list[LiveServer]:
    """Both are there, whatever the test before did to them."""
    for node in running:
        if not node.is_running:
            node.launch()
        node.wait_until_ready()
    return running


@pytest.fixture
def admin(nodes: list[LiveServer]) -> dict[str, str]:
    """Headers of somebody who may do everything."""
    tokens = nodes[0].post("/auth/login", json={"login": "admin", "password": ADMIN_PASSWORD})
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def request(node: LiveServer, method: str, path: str, **options: Any) -> httpx.Response:
    """On a connection of its own, so that any worker of the node may get it."""
    return HTTP.request(method, node.url + path, **options)


def statuses(node: LiveServer, path: str, token: str) -> set[int]:
    """What every worker of the node answers to this access token."""
    headers = {"Authorization": f"Bearer {token}"}
    return {request(node, "GET", path, headers=headers).status_code for _ in range(EVERY_WORKER)}


def refresh(node: LiveServer, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": token}
    return request(node, "POST", "/oauth/token", data=form)


def age_keys(node: LiveServer, *states: str, days: int = 2) -> None:
    """As if the keys in these states were so old. Replaces the manifest in one step, as the ring itself does."""
    manifest = Path(node.environment["TOKENSERVER_KEYS_DIR"], "ring.json")
    ring = json.loads(manifest.read_text())
    past = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds").replace("+00:00", "Z")
    for entry in ring["entries"]:
        if entry["state"] in states:
            entry.update({name: past for name in ("created_at", "published_at", "activated_at") if entry.get(name)})
    written = manifest.with_suffix(".test")
    written.write_text(json.dumps(ring))
    written.chmod(0o600)
    written.replace(manifest)
