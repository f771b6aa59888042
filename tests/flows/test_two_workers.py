"""A server with two worker processes, as it is run: one refresh token used 50 times at once, and Redis emptied
under load. On embedded SQLite and on PostgreSQL.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from tests.live_server import PASSWORD, serving
from tests.oidc.relying_party import wait_until
from tokenserver.app import create_app, rooms_of
from tokenserver.config import Settings
from tokenserver.tokens.models import RefreshFamily

USES = 50


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request):
    return request.param


@pytest.fixture(scope="module")
def server(request, store, databases):
    """`request.param`: the grace."""
    external = {"database_url": databases.empty(store)} if store == "postgresql" else {}
    with serving(refresh_grace=request.param, rate_limits="off", **external) as running:
        yield running


def use(http, token):
    form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": token}
    return http.post("/oauth/token", data=form)


@pytest.mark.parametrize("server", ["10", "0"], indirect=True, ids=["grace", "strict"])
def test_50_uses_of_one_token_at_once(server):
    """E01. A docs-style server gave 5 to 20 successes, each with a successor of its own."""
    server.post("/auth/register", 201, json={"username": "ann", "email": "ann@example.org", "password": PASSWORD})
    for _ in range(5):
        token = server.post("/auth/login", json={"login": "ann", "password": PASSWORD})["refresh_token"]
        limits = httpx.Limits(max_connections=USES)
        with (
            httpx.Client(base_url=server.url, limits=limits, timeout=30, trust_env=False) as http,
            ThreadPoolExecutor(USES) as pool,
        ):
            start = threading.Barrier(USES)

            def at_once(_, token=token, start=start, http=http):
                start.wait()
                return use(http, token)

            responses = list(pool.map(at_once, range(USES)))
            successes = [r.json() for r in responses if r.status_code == 200]
            if server.environment["TOKENSERVER_REFRESH_GRACE"] == "0":
                assert len(successes) == 1
                assert {r.json()["error"] for r in responses if r.status_code != 200} == {"invalid_grant"}
                # Strict single use: the second one is a replay, and a replay ends the family.
                assert use(http, successes[0]["refresh_token"]).status_code == 400
            else:
                assert len(successes) == USES
                assert len({s["refresh_token"] for s in successes}) == 1
                assert use(http, successes[0]["refresh_token"]).status_code == 200


class HonestClient(threading.Thread):
    """Signs in and refreshes on and on, keeping what it was given; repeats after a 503 or a lost answer."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.name_ = server, name
        self.stop = threading.Event()
        tokens = server.post("/auth/login", json={"login": name, "password": PASSWORD})
        self.consumed = []  # refresh tokens whose successor was there
        self.token = tokens["refresh_token"]
        self.failures = []
        self.waits = 0

    def run(self):
        with httpx.Client(base_url=self.server.url, timeout=30, trust_env=False) as http:
            while not self.stop.is_set():
                response = use(http, self.token)
                if response.status_code == 200:
                    self.consumed.append(self.token)
                    self.token = response.json()["refresh_token"]
                elif response.status_code == 503:
                    assert int(response.headers["Retry-After"]) >= 1
                    self.waits += 1
                    time.sleep(0.05)
                else:
                    self.failures.append((response.status_code, response.text))
                    return


@pytest.mark.parametrize("server", ["10"], indirect=True, ids=["grace"])
def test_redis_emptied_under_load(server):
    """E11: nothing revoked is accepted, nothing that a checkpoint has seen consumed, and honest clients go on
    refreshing. Checkpoints are well under a second behind."""
    names = [f"user{i}" for i in range(6)]
    for name in names:
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        server.post("/auth/register", 201, json=body)
    revoked = []
    for name in names[:3]:
        tokens = server.post("/auth/login", json={"login": name, "password": PASSWORD})
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        httpx.post(f"{server.url}/auth/logout", headers=headers, timeout=30, trust_env=False)
        revoked.append(tokens)
    honest = [HonestClient(server, name) for name in names]
    for client in honest:
        client.start()

    def refreshed(times):
        """Every client, so often from now on."""
        aims = [len(client.consumed) + times for client in honest]
        wait_until(lambda: all(len(c.consumed) >= aim or c.failures for c, aim in zip(honest, aims, strict=True)))

    rooms = rooms_of(create_app(Settings.load(server.environment)))

    def checkpointed(token):
        family_id, generation = rooms.refresh_tokens.parse(token)
        family = rooms.database.read(lambda tx: tx.get(RefreshFamily, family_id))
        return family.generation > generation

    socket = server.environment["TOKENSERVER_DATA_DIR"] + "/redis.sock"
    with redis.Redis(unix_socket_path=socket) as admin:
        for _ in range(4):
            refreshed(5)
            old = [client.consumed[-1] for client in honest]
            wait_until(lambda old=old: all(map(checkpointed, old)))
            admin.flushall()
    refreshed(5)
    for client in honest:
        client.stop.set()
    for client in honest:
        client.join(60)
    rooms.database.engine.dispose()
    rooms.store.close()

    assert [client.failures for client in honest] == [[]] * len(honest)
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
        for tokens in revoked:
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert http.get("/users/me", headers=headers).status_code == 401
            assert use(http, tokens["refresh_token"]).status_code == 400
        # The thief, last: one old token of each family.
        for token in old:
            assert use(http, token).status_code == 400
