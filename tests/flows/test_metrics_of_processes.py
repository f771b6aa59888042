"""The metrics of a server with two processes: sums of both, through the death of one, with every grant counted."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.live_server import PASSWORD, LiveServer, serving
from tokenserver.signals import shared

TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE = 60.0


def metrics_of(server: LiveServer) -> dict[tuple[str, ...], float]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.get(f"{server.url}/metrics", headers=headers, trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def server(folder: Path):
    options = {"metrics_token": TOKEN, "metrics_dir": str(folder), "rate_limits": "off", "log_level": "warning"}
    with serving(**options) as running:
        yield running


def load(server: LiveServer, auth: tuple[str, str], asked: Counter[str], times: int) -> None:
    """Each request on a connection of its own, so that both processes get some."""
    for _ in range(times):
        server.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth)
        form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
        tokens = server.post("/oauth/token", data=form, auth=auth)
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        server.post("/oauth/token", data=form, auth=auth)
        asked.update(("client_credentials", "password", "refresh_token"))


def test_sums_are_right_and_never_fall(server: LiveServer):
    auth = server.create_client(
        "backend", "client_credentials", "password", "refresh_token", scope="openid posts:create"
    )
    server.signed_in("ann")
    asked: Counter[str] = Counter(password=1)
    seen: list[dict[tuple[str, ...], float]] = []

    def is_right() -> bool:
        found = metrics_of(server)
        seen.append(found)
        issued = {grant: found["tokenserver_tokens_issued_total", grant] for grant in asked}
        rotated = found["tokenserver_refreshes_total", "rotated"]
        requests = found.get(("tokenserver_requests_total", "/oauth/token", "2xx", "POST"), 0)
        told = (issued, rotated, requests)
        assert requests <= asked.total() - 1
        return told == (dict(asked), asked["refresh_token"], asked.total() - 1)

    def check() -> None:
        """Right half a second later, and nothing that only rises has fallen, whichever process answers."""
        wait_until(is_right)

    load(server, auth, asked, 6)
    check()
    for _ in range(2):
        before = server.workers()
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda gone=victim: gone not in server.workers())
        check()
        wait_until(lambda: len(server.workers()) == 2)
        wait_until(lambda: metrics_of(server)["tokenserver_workers",] == 2)
        load(server, auth, asked, 3)
        check()
    for earlier, later in pairwise(seen):
        falling = {
            key: (value, later.get(key))
            for key, value in earlier.items()
            if key[0].endswith(("_total", "_count", "_bucket", "_sum")) and later.get(key, -1) < value
        }
        assert falling == {}
    assert httpx.get(f"{server.url}/metrics", trust_env=False, timeout=30).status_code == 401


def test_what_is_counted_is_there_for_others_though_nobody_asks(server: LiveServer, folder: Path):
    """Who is asked tells what the other processes wrote until then."""
    auth = server.create_client("counted", "client_credentials", scope="posts:create")

    def issued() -> float:
        """By the files: whoever is asked would write first."""
        return sum(
            sample.value
            for metric in shared.collect(folder)
            for sample in metric.samples
            if sample.name == "tokenserver_tokens_issued_total" and sample.labels["grant"] == "client_credentials"
        )

    before = issued()
    for _ in range(5):
        server.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth)
    wait_until(lambda: issued() == before + 5)
