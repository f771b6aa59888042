"""The server on Redis with TLS, an ACL user, Sentinel and Cluster: its promises hold there, also while they fail.

The whole suite runs on each of them with TOKENSERVER_TEST_REDIS; here is what only they can do.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from tests.certificates import Authority
from tests.cli.conftest import Deployment, deployment, empty, prepared
from tests.conftest import Api, Apps, Databases
from tests.redis_servers import FILES, Cluster, Sentinel, Single, Topology, until
from tokenserver.app import rooms_of
from tokenserver.rooms import Rooms
from tokenserver.storage import redis_rules

__all__ = ["deployment", "empty", "prepared"]


class Processes:
    """Two processes of the server on the same stores; `name()` is of nobody yet."""

    def __init__(self, apps: Apps) -> None:
        self.apps = apps
        self.first, self.second = Api(apps().test_client()), Api(apps().test_client())
        row, secret = self.rooms.clients.create(
            client_id="backend",
            client_name="A back end",
            grant_types=["client_credentials"],
            scope=["tokens:introspect"],
        )
        assert secret is not None
        self.client = (row.client_id, secret)

    @property
    def rooms(self) -> Rooms:
        return rooms_of(self.apps.made[0])

    def is_active(self, token: str) -> bool:
        response = answered(lambda: self.second.introspect(self.client, token))
        return bool(response.json["active"])

    def assert_dead(self, tokens: dict[str, Any]) -> None:
        """By every door, in both processes, and in one that has just been started."""
        for api in (self.first, self.second, Api(self.apps().test_client())):
            assert answered(lambda api=api: api.me(tokens["access_token"])).status_code == 401
            assert answered(lambda api=api: api.refresh(tokens["refresh_token"])).status_code == 401
        assert not self.is_active(tokens["access_token"])

    def live(self, username: str) -> None:
        """Sign in, refresh, introspect, revoke, and a replay."""
        tokens = self.first.signed_in(username)
        later = answered(lambda: self.second.refresh(tokens["refresh_token"])).json
        assert self.first.me(later["access_token"]).status_code == 200
        assert self.is_active(later["access_token"])
        assert self.first.revoke(later["refresh_token"]).status_code == 200
        self.assert_dead(later)
        stolen = self.first.login(username)
        chain = [stolen["refresh_token"]]
        for _ in range(2):
            chain.append(self.first.refresh(chain[-1]).json["refresh_token"])
        assert self.second.refresh(chain[0]).status_code == 401
        assert self.first.refresh(chain[-1]).status_code == 401


def answered(ask: Callable[[], Any]) -> Any:
    """What is said when the store is there again; meanwhile a client hears 503 with Retry-After alone."""

    def say() -> Any:
        response = ask()
        if response.status_code != 503:
            assert response.status_code < 500, response.text
            return [response]
        assert int(response.headers["Retry-After"]) >= 1
        return []

    return until(say, "an answer")[0]


@pytest.fixture
def processes_on(databases: Databases) -> Iterator[Callable[..., Processes]]:
    made: list[Processes] = []

    def make(redis: Topology, database: int = 0, **options: Any) -> Processes:
        settings = databases.settings(databases.fresh("sqlite"), redis_url=redis.fresh_url(database), **options)
        made.append(Processes(Apps(settings)))
        return made[-1]

    yield make
    for each in made:
        each.apps.close()
        databases.give_back("sqlite", each.apps.settings.database_url)


@pytest.fixture(scope="module")
def tls() -> Iterator[Single]:
    with Single(tls=True) as servers:
        yield servers


@pytest.fixture(scope="module")
def sentinel() -> Iterator[Sentinel]:
    """All that there is: TLS, an ACL user, a password of the Sentinels."""
    with Sentinel(tls=True, acl=True, password=True) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(acl=True) as servers:
        yield servers


def test_tls_with_a_client_certificate(tls: Single, processes_on: Callable[..., Processes]):
    processes_on(tls).live("ann")


def test_a_redis_that_hangs_is_not_waited_for_and_heals(tls: Single, processes_on: Callable[..., Processes]):
    """E17."""
    processes = processes_on(tls, 1)
    tokens = processes.first.signed_in("ann")
    tls.pause()
    try:
        for _ in range(5):
            response = processes.first.me(tokens["access_token"])
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
    finally:
        tls.resume()
    assert answered(lambda: processes.first.me(tokens["access_token"])).status_code == 200
    assert answered(lambda: processes.first.refresh(tokens["refresh_token"])).status_code == 200


# The user of Redis


def granted() -> set[str]:
    (line,) = re.findall(r"(?m)^user tokenserver .*$", (FILES / "users.acl.template").read_text("utf-8"))
    return set(re.findall(r"\+(\S+)", line))


def used(servers: Topology) -> set[str]:
    """Since `CONFIG RESETSTAT`, by scripts too."""
    names = {name for server in servers.masters() for name in server.info("commandstats")}
    return {name.removeprefix("cmdstat_") for name in names}


def denials(servers: Topology) -> list[str]:
    """What Redis refused, and to whom."""
    logs = (entry for server in servers.masters() for entry in server.client().acl_log())
    # redis-py tells its name (CLIENT SETINFO), and goes on where that is refused: by a Redis before 7, so named.
    return [f"{entry['username']}: {entry['object']}" for entry in logs if entry["object"] != "client"]


def test_the_user_of_redis_may_do_what_the_server_does_and_nothing_else(
    cluster: Cluster, processes_on: Callable[..., Processes], deployment: Deployment
):
    """With the file of the docs; whoever changes what the server sends, changes it there."""
    with Single(acl=True) as single:
        for servers, database in ((single, 3), (cluster, 0)):
            for server in servers.masters():
                server.client().config_resetstat()
            processes = processes_on(servers, database)
            processes.live("ann")
            rooms, tokens = processes.rooms, processes.first.signed_in("bob")
            begun = rooms.interactions.begin("browser", resume="/", client_id=None, data={})
            assert rooms.interactions.find(begun.id, "browser") == begun
            rooms.interactions.end(begun.id)
            rooms.checkpoints.drain()
            rooms.trail.drain_all()
            rooms.feed.follow()
            rooms.feed.reconcile()
            servers.empty()  # families are rebuilt from SQL
            assert processes.first.refresh(tokens["refresh_token"]).status_code == 200
            rooms.checkpoints.drain()
        move_a_slot(cluster, processes)
        findings = json.loads(deployment.run("doctor", "--json", REDIS_URL=single.url(4)).out)
        assert not [finding for finding in findings if finding["status"] == "fault"]
        assert not denials(single)
        assert not denials(cluster)
        assert granted() - used(single) - used(cluster) == set()
    asked = {command.split()[0].lower() for command in redis_rules.COMMANDS}
    assert granted() - asked == {"multi", "exec", "select", "asking", "cluster|slots"}


# Sentinel


def test_sentinel_with_tls_and_passwords(sentinel: Sentinel, processes_on: Callable[..., Processes]):
    processes_on(sentinel).live("ann")


@pytest.mark.parametrize("lag", ["none", "the replica is stale"])
def test_a_killed_master_signs_nobody_out_and_brings_nothing_back(
    sentinel: Sentinel, processes_on: Callable[..., Processes], lag: str
):
    """E13: nobody is restarted but Redis."""
    processes = processes_on(sentinel, 1 if lag == "none" else 2)
    api = processes.first
    chain, revoked = [api.signed_in()["refresh_token"]], api.signed_in("bob")
    before, replica = sentinel.master, sentinel.replica
    until(lambda: before.client().wait(1, 1000) == 1, "the replica has it all")
    if lag != "none":
        replica.pause()
        before.client().client_kill_filter(_type="replica")  # else it would read what was already sent
    for _ in range(3):
        chain.append(api.refresh(chain[-1]).json["refresh_token"])
    processes.rooms.checkpoints.drain()
    api.http.post("/auth/logout", headers={"Authorization": f"Bearer {revoked['access_token']}"})
    before.kill()
    replica.resume()

    processes.assert_dead(revoked)
    live = answered(lambda: processes.second.refresh(chain[-1]))
    assert live.status_code == 200, "an honest user is signed out"
    assert answered(lambda: api.me(live.json["access_token"])).status_code == 200
    assert answered(lambda: api.refresh(chain[1])).status_code == 401
    assert sentinel.promoted(before) is replica
    before.start()
    sentinel.wait_whole()


# Cluster


def bucket_key(processes: Processes, token: str) -> str:
    return processes.rooms.feed.family_key(processes.rooms.refresh_tokens.parse(token)[0])


def test_cluster(cluster: Cluster, processes_on: Callable[..., Processes]):
    processes = processes_on(cluster)
    for name in ("ann", "bob", "eve"):
        processes.live(name)


def test_a_killed_master_of_a_cluster_is_replaced_by_its_replica(
    cluster: Cluster, processes_on: Callable[..., Processes]
):
    """E15."""
    processes = processes_on(cluster)
    api = processes.first
    chain, revoked = [api.signed_in()["refresh_token"]], api.signed_in("bob")
    for _ in range(3):
        chain.append(api.refresh(chain[-1]).json["refresh_token"])
    processes.rooms.checkpoints.drain()
    api.http.post("/auth/logout", headers={"Authorization": f"Bearer {revoked['access_token']}"})
    killed = cluster.master_of(bucket_key(processes, chain[0]))
    (replica,) = cluster.replicas_of(killed)
    killed.kill()
    live = answered(lambda: processes.second.refresh(chain[-1]))
    assert live.status_code == 200, "an honest user is signed out"
    assert replica.client().role()[0] == "master"
    processes.assert_dead(revoked)
    assert answered(lambda: api.refresh(chain[1])).status_code == 401
    killed.start()
    cluster.wait_whole()


def test_a_slot_that_moves_is_no_clients_business(cluster: Cluster, processes_on: Callable[..., Processes]):
    """E15: what is asked in the midst of it is answered, or asked to come again."""
    move_a_slot(cluster, processes_on(cluster))


def move_a_slot(cluster: Cluster, processes: Processes) -> None:
    tokens = {name: processes.first.signed_in(name)["refresh_token"] for name in ("cat", "dan", "eva")}
    key = bucket_key(processes, tokens["cat"])
    source = cluster.master_of(key)
    target = next(server for server in cluster.masters() if server is not source)
    said: set[int] = set()

    def refresh() -> None:
        for name, token in tokens.items():
            response = processes.second.refresh(token)
            said.add(response.status_code)
            if response.status_code == 200:
                tokens[name] = response.json["refresh_token"]
        bucket = int(key[key.index("{") + 1 : key.index("}")])
        absent = f"ts:{{{bucket}}}:i:nobody"  # who has the slot says ASK for what isn't there any more
        assert processes.rooms.store.ask_unverified(bucket, lambda client: client.get(absent))[1] is None

    cluster.move_slot(key_slot(key.encode()), source, target, midway=refresh)
    assert cluster.master_of(key) is target
    assert said <= {200, 503}
    for token in tokens.values():
        assert answered(lambda token=token: processes.first.refresh(token)).status_code == 200


# What is wrong with the URL or with what is behind it


def wrong_urls(tls: Single, sentinel: Sentinel, folder: Path) -> dict[str, tuple[str, str]]:
    """By what is wrong: the URL, and what is said of it, where TLS doesn't end it in one way or the other."""
    assert tls.tls
    assert sentinel.passwords
    stranger = Authority(folder, "Nobody's authority").ca_file
    single, good = tls.url(), sentinel.url()
    return {
        "another authority": (
            single.replace(str(tls.tls.authority.ca_file), str(stranger)),
            "certificate",
        ),
        "no certificate": (re.sub(r"&ssl_certfile=.*", "", single), ""),
        "no TLS": (single.replace("rediss:", "redis:").partition("?")[0], ""),
        "password": (good.replace(f":{sentinel.passwords.user}@", ":guessed@"), "AuthenticationError"),
        "user": (good.replace("//tokenserver:", "//nobody:"), "AuthenticationError"),
        "service": (good.replace("/tokenserver/0", "/other/0"), "the Sentinels name no master of other)"),
        "password of the Sentinels": (
            good.replace(sentinel.sentinel_password, "guessed"),
            "the Sentinels name no master of tokenserver: AuthenticationError",
        ),
    }


def test_what_is_wrong_is_said_in_one_line(tls: Single, sentinel: Sentinel, deployment: Deployment, tmp_path: Path):
    """E18. By `doctor`, and by `serve`, which doesn't start; neither tells a password."""
    assert sentinel.passwords
    urls = wrong_urls(tls, sentinel, tmp_path)
    said = {}
    for name, (url, words) in urls.items():
        done = deployment.run("doctor", "--json", REDIS_URL=url)
        (finding,) = (each for each in json.loads(done.out) if each["status"] == "fault")
        assert done.line == "1 fault found"
        assert words in finding["detail"], name
        assert len(finding["detail"]) < 250, name
        assert finding["remedy"] == "see that Redis is up and TOKENSERVER_REDIS_URL is right", name
        for secret in (sentinel.sentinel_password, sentinel.passwords.user, "guessed"):
            assert secret not in done.out + done.err, name
        said[name] = finding["detail"]
    for name in ("another authority", "service"):
        line = deployment.serve_refused(REDIS_URL=urls[name][0])
        assert line == f"{said[name]}: check TOKENSERVER_REDIS_URL", name
