"""Nodes are restarted one after the other while clients go on; workers are killed. Nobody loses anything."""

import http.client
import json
import os
import signal
import time

import pytest

from tests.live_server import PASSWORD
from tests.nodes.balancing import PAUSE, Balancer, HonestClient, readiness
from tests.nodes.conftest import EVERY_WORKER, refresh, request, wait_until
from tests.nodes.killing import kill_workers_amid_refreshes

CLIENTS = 3


@pytest.fixture
def families(nodes, request):
    """The refresh tokens of a user's sign-ins."""
    name = f"user{abs(hash(request.node.name)) % 10**8}"
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    nodes[0].post("/auth/register", 201, json=body)
    credentials = {"login": name, "password": PASSWORD}
    return [nodes[i % 2].post("/auth/login", json=credentials)["refresh_token"] for i in range(CLIENTS)]


def test_a_rolling_restart_under_load(nodes, families):
    """E27: each node in turn gets SIGTERM and starts again; no request fails, and none is sent twice."""
    with Balancer(nodes) as balancer:
        clients = [HonestClient(balancer, token, pause=lambda: time.sleep(PAUSE)) for token in families]
        for client in clients:
            client.start()

        def refreshed(count):
            before = [len(client.successors) for client in clients]
            wait_until(
                lambda: all(
                    len(client.successors) >= done + count or client.refused
                    for client, done in zip(clients, before, strict=True)
                )
            )

        for node in nodes:
            refreshed(5)
            node.process.send_signal(signal.SIGTERM)
            wait_until(lambda node=node: readiness(node)[0] != 200)
            assert node.process.wait(60) == 0
            refreshed(5)
            node.start()
            wait_until(lambda node=node: balancer.ready[nodes.index(node)])
        refreshed(5)
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join(60)
    assert [client.lost for client in clients] == [[]] * CLIENTS
    assert [client.refused for client in clients] == [[]] * CLIENTS
    assert [set(client.outcomes) for client in clients] == [{"200"}] * CLIENTS


def test_who_drains_says_so_and_still_answers(nodes):
    """Balancers are told first; what they send meanwhile is answered, each on a connection that ends after it."""
    node = nodes[1]
    port = int(node.url.rpartition(":")[2])
    kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(EVERY_WORKER)]
    for connection in kept:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        assert connection.sock is not None
    # To all of its processes at once, as systemd does.
    os.killpg(node.process.pid, signal.SIGTERM)
    wait_until(lambda: readiness(node)[0] == 503)
    answer = json.loads(readiness(node)[1])
    assert (answer["status"], answer["missing"]) == ("draining", [])
    for connection in kept:
        connection.request("GET", "/posts")
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Connection"] == "close"
        assert response.read()
        assert connection.sock is None  # closed after the answer, as announced
    fresh = request(node, "GET", "/posts")
    assert (fresh.status_code, fresh.headers["Connection"]) == (200, "close")
    assert node.process.wait(60) == 0
    node.start()
    assert "close" not in request(node, "GET", "/healthz").headers.get("Connection", "")


def test_workers_killed_amid_refreshes(nodes, families):
    """E26, E01, E03: whoever repeats the request without an answer stays signed in, and no family forks."""
    toll = kill_workers_amid_refreshes(nodes, families, kills=4, seed=1)
    assert toll.kills == 4
    assert toll.signed_out == []
    assert toll.forks == 0
    assert set(toll.outcomes) <= {"200", "503", "lost"}


def test_a_worker_killed_again_and_again(nodes):
    """As by the kernel when memory is short: it is no reason for the node to give up."""
    node = nodes[0]
    for _ in range(3):
        before = node.workers()
        os.kill(max(before), signal.SIGKILL)
        wait_until(lambda before=before: len(node.workers() - before) == 1 and len(node.workers()) == 2)
    assert node.is_running
    wait_until(lambda: readiness(node)[0] == 200)


def test_the_strict_way_to_end_again(nodes, families):
    """A token from before the kills is not honoured because of them."""
    older = families[0]
    newer = refresh(nodes[0], older).json()["refresh_token"]
    newest = refresh(nodes[1], newer).json()["refresh_token"]
    victim = min(nodes[0].workers())
    os.kill(victim, signal.SIGKILL)
    assert refresh(nodes[1], older).status_code == 400
    assert refresh(nodes[1], newest).status_code == 400
    wait_until(lambda: victim not in nodes[0].workers() and len(nodes[0].workers()) == 2)
