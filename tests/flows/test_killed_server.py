"""`kill -9` of the whole server, stores included, amid requests: the log and the counts miss nothing that was
answered."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import ADMIN_PASSWORD, bearer
from tests.live_server import serving


@pytest.fixture
def server():
    with serving(rate_limits="off") as running:
        yield running


def test_every_answered_request_is_in_the_log_and_in_the_counts(server):
    admin = server.post("/auth/login", json={"login": "admin", "password": ADMIN_PASSWORD})["access_token"]
    user = server.signed_in("ann")["access_token"]
    answered = {200: [], 403: []}
    killed = False

    def ask(token):
        while not killed:
            try:
                url = f"{server.url}/admin/keys"
                response = httpx.get(url, headers=bearer(token), timeout=30, trust_env=False)
            except httpx.TransportError:
                return
            answered[response.status_code].append(response.headers["X-Request-ID"])

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask, token) for token in (admin, admin, admin, user, user, user)]
        while len(answered[200]) + len(answered[403]) < 150:
            time.sleep(0.005)
        server.kill()
        killed = True
        for each in asking:
            each.result()

    server.start()
    with httpx.Client(base_url=server.url, headers=bearer(admin), timeout=30, trust_env=False) as http:
        stats = http.get("/admin/stats?window=1h").json()
        (keys,) = [each for each in stats["permissions"] if each["permission"] == "keys:read"]
        logged = {"success": set(), "denied": set()}
        for outcome, found in logged.items():
            cursor = {}
            while cursor is not None:
                query = {"path": "/admin/keys", "outcome": outcome, "limit": 100} | cursor
                page = http.get("/admin/logs", params=query).json()
                found |= {item["request_id"] for item in page["items"]}
                cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    assert set(answered[200]) <= logged["success"]
    assert set(answered[403]) <= logged["denied"]
    # What was recorded and not answered any more: at most what was under way.
    assert len(logged["success"]) + len(logged["denied"]) <= len(answered[200]) + len(answered[403]) + 6
    assert (keys["allowed"], keys["denied"]) == (len(logged["success"]), len(logged["denied"]))
    deadline = time.monotonic() + 60
    while not json.loads(server.run("audit", "verify", "--json", status=None))["ok"]:
        assert time.monotonic() < deadline, server.run("audit", "verify", status=None)
        time.sleep(0.2)  # the new server has not made its first checkpoint yet
