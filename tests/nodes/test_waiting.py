"""Who waits for the revocation list at one node hears what is revoked at the other, and isn't in the way."""

import secrets
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx

from tests.conftest import bearer
from tests.live_server import PASSWORD
from tests.nodes.conftest import PATIENCE, request, wait_until
from tests.revocation_lists import PATH
from tokenserver.oauth.endpoints.waiting import MOST_SECONDS, SHORTEST
from tokenserver.verify import Revocations, TokenError, Verifier

GAUGE = "tokenserver_revocation_list_readers_waiting "


def waiting(node) -> float:
    """How many readers wait in all processes of the node."""
    lines = request(node, "GET", "/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(GAUGE)).removeprefix(GAUGE))


def follow(node, is_last: Callable[[httpx.Response], bool]) -> tuple[httpx.Response, float]:
    """What a reader is answered last, who asks for the list after the one it has; and in how many seconds."""
    etag = ""
    while True:
        began = time.monotonic()
        headers = {"If-None-Match": etag, "Prefer": f"wait={MOST_SECONDS}"}
        response = request(node, "GET", PATH, headers=headers)
        if is_last(response):
            return response, time.monotonic() - began
        etag = response.headers["ETag"]


def test_what_is_revoked_at_one_node_is_told_to_who_waits_at_the_other(nodes):
    """RFC 7240 section 4.3: before the time is over. Where the machine stood still meanwhile, once more."""
    here, there = nodes
    name = f"mia-{secrets.token_hex(4)}"
    there.signed_in(name)
    with ThreadPoolExecutor() as pool:
        for _ in range(5):
            token = there.post("/auth/login", json={"login": name, "password": PASSWORD})["access_token"]
            revoked = Event()
            asked = pool.submit(follow, here, lambda _, revoked=revoked: revoked.is_set())
            wait_until(lambda: waiting(here))
            revoked.set()
            assert request(there, "POST", "/auth/logout", headers=bearer(token)).status_code == 204
            response, seconds = asked.result(PATIENCE)
            assert response.status_code == 200
            assert response.headers["Preference-Applied"] == f"wait={MOST_SECONDS}"
            if seconds < MOST_SECONDS * SHORTEST:
                break
        else:
            raise AssertionError("it came by time alone")


def test_a_verifier_waits_and_refuses(nodes):
    """With an interval that it would not live to see."""
    here, there = nodes
    told = []
    options = Revocations(interval=100, max_staleness=120, on_enforced=told.append)
    verifier = Verifier.for_issuer(here.url, here.url, revocations=options)
    token = there.signed_in(f"noa-{secrets.token_hex(4)}")["access_token"]
    assert verifier.verify(token).client_id == "first-party"
    wait_until(lambda: waiting(here))
    assert request(there, "POST", "/auth/logout", headers=bearer(token)).status_code == 204

    def is_refused():
        try:
            verifier.verify(token)
        except TokenError as error:
            return error.private == "revoked"
        return False

    wait_until(is_refused)
    assert told
    verifier.revocations.close()


def turned_away(response) -> bool:
    return "Preference-Applied" not in response.headers


def test_a_node_that_ends_lets_its_readers_go(nodes):
    """Before their time is over: it answers them while it drains, each for the last time on its connection."""
    _, node = nodes
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(follow, node, turned_away) for _ in range(10)]
        wait_until(lambda: waiting(node) == len(asked))
        node.process.send_signal(signal.SIGTERM)
        for each in asked:
            response, _ = each.result(PATIENCE)
            assert response.status_code in {200, 304}
            assert response.headers["Connection"] == "close"
        wait_until(lambda: not node.is_running)
