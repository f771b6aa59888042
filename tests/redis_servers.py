"""Redis in every shape that the server knows, really started on loopback: single, TLS, ACL, Sentinel, Cluster.

`Single`, `Sentinel` and `Cluster` are context managers; `url()` is what TOKENSERVER_REDIS_URL takes. They run the
files of `docs/deploy/redis` with other addresses, folders, passwords and shorter times. `Server` is one process of
them, to be stopped, killed, paused and started again; `admin()` is for looking behind the server's back.

Environment: TOKENSERVER_TEST_REDIS names the topology of the whole run.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn, Self
from urllib.parse import urlencode

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

from tests import thrift
from tests.certificates import Authority, Certificate
from tokenserver.storage.redis_node import PAUSE_SECONDS
from tokenserver.storage.redis_server import Program

HOST: Final = "127.0.0.1"
SERVICE: Final = "tokenserver"
USER: Final = "tokenserver"
SLOTS: Final = 16384
READY_SECONDS: Final = 30.0  # CI has two slow cores; nothing waits longer than it must
FILES: Final = Path(__file__).parent.parent / "docs" / "deploy" / "redis"
# Below those of tests/ports.py, and so is the bus of a cluster node, which Redis 6.2 has 10000 above its port.
PORTS: Final = range(2100, 4900)
TOPOLOGY: Final = os.environ.get("TOKENSERVER_TEST_REDIS", "single")


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def until(true: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
    """Polls, and returns what was true. What Redis refuses meanwhile counts as not yet."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while True:
        fault: object = "false"
        try:
            if result := true():
                return result
        except redis.RedisError as error:
            fault = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s not yet: {what} ({fault})")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


@cache
def program() -> str:
    return Program.find().path


@cache
def program_with_tls() -> str:
    """The wheel's has no TLS."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        # Refuses the option when built without TLS, else the missing file.
        command = [program(), "--port", "0", "--tls-port", "1", "--tls-cert-file", "none", "--dir", folder]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if "Bad directive" in said.stdout + said.stderr or "FATAL CONFIG FILE ERROR" in said.stdout + said.stderr:
        unavailable("Redis with TLS is not tested: no redis-server on the path has TLS (Debian's has)")
    return program()


@dataclass
class Port:
    """Nobody else of these tests, in whichever process, takes it (or the one of its bus) until it is freed."""

    number: int
    lock: Any

    @classmethod
    def take(cls) -> Self:
        folder = Path(tempfile.gettempdir(), f"ts-ports-{os.getuid()}")
        folder.mkdir(exist_ok=True)
        for number in random.sample(PORTS, 200):
            lock = (folder / str(number)).open("w")
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for port in (number, number + 10000):
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Redis does
                        probe.bind((HOST, port))
                return cls(number, lock)
            lock.close()
        raise AssertionError("no free port")

    def free(self) -> None:
        self.lock.close()


@dataclass(frozen=True)
class Tls:
    """Certificates of the servers and of one client, by one authority."""

    authority: Authority
    server: Certificate
    client: Certificate

    @classmethod
    def make(cls, folder: Path) -> Self:
        authority = Authority(folder)
        return cls(authority, authority.server(), authority.client("tokenserver"))

    def query(self) -> dict[str, str]:
        """As TOKENSERVER_REDIS_URL and redis-py name them."""
        return {
            "ssl_ca_certs": str(self.authority.ca_file),
            "ssl_certfile": str(self.client.cert_file),
            "ssl_keyfile": str(self.client.key_file),
        }


@dataclass(frozen=True)
class Passwords:
    """`user` is None where Redis has no ACL file."""

    user: str | None = None
    admin: str = ""
    replica: str = ""
    sentinel: str = ""

    @classmethod
    def make(cls) -> Self:
        return cls(*(secrets.token_hex(8) for _ in range(4)))

    def acl_file(self) -> str:
        """The template of the docs, and the user as whom the tests look behind the server's back."""
        text = re.sub(r"(?m)^#.*\n", "", (FILES / "users.acl.template").read_text("utf-8"))
        for name, password in ((USER, self.user), ("replica", self.replica), ("sentinel", self.sentinel)):
            digest = hashlib.sha256((password or "").encode()).hexdigest()
            text = text.replace(f"{name.upper()}-SHA256", digest)
        return f"{text}user admin on >{self.admin} ~* &* +@all\n"


def lines_of(file: str, *, tls: Tls | None, acl: Passwords | None) -> list[str]:
    """A configuration file of the docs with the files and passwords of the tests, less what these don't have."""
    lines = [line for line in (FILES / file).read_text("utf-8").splitlines() if line and not line.startswith("#")]
    if tls is None:
        lines = [line for line in lines if not line.startswith("tls-")]
    if acl is None:
        secret = ("aclfile", "masteruser", "masterauth", "sentinel auth-")
        lines = [line for line in lines if not line.startswith(secret)]
    text = "\n".join(lines)
    if tls is not None:
        text = text.replace("/etc/redis/tls/server.crt", str(tls.server.cert_file))
        text = text.replace("/etc/redis/tls/server.key", str(tls.server.key_file))
        text = text.replace("/etc/redis/tls/ca.crt", str(tls.authority.ca_file))
    if acl is not None:
        text = text.replace("REPLICA-PASSWORD", acl.replica).replace("SENTINEL-USER-PASSWORD", acl.sentinel)
    return text.splitlines()


@dataclass
class Server:
    """One process. `lines`: its configuration file, which Redis itself may rewrite later."""

    folder: Path
    port: Port
    lines: Sequence[str]
    binary: str
    tls: Tls | None = None
    login: tuple[str | None, str] | None = None  # of an administrator
    socket: Path | None = None
    is_sentinel: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    options: Sequence[str] = ()
    _client: Any = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port.number}"

    @property
    def config_file(self) -> Path:
        return self.folder / f"{self.port.number}.conf"

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.port.number}.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self, *options: str) -> None:
        """Starts it without waiting; `options` go before what its file says, this time and from now on."""
        if self.is_running:
            return
        if options:
            self.options = options
        if not self.config_file.exists():
            self.config_file.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        command = [self.binary, str(self.config_file), *(["--sentinel"] if self.is_sentinel else []), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.folder)

    def wait(self) -> None:
        def answers() -> bool:
            assert self.process is None or self.process.poll() is None, self.log()[-2000:]
            return bool(self.client().ping())

        until(answers, f"redis-server answers on {self.address}")

    def start(self, *options: str) -> None:
        self.spawn(*options)
        self.wait()

    def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        self.resume()
        self.process.kill() if kill else self.process.terminate()
        self.process.wait(20)
        self.process = None

    def kill(self) -> None:
        self.stop(kill=True)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.is_running and self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def client(self, database: int = 0) -> Any:
        """Of an administrator; one for database 0, which is kept."""
        if database == 0 and self._client is not None:
            return self._client
        options: dict[str, Any] = {"decode_responses": True, "socket_timeout": 5, "retry": Retry(NoBackoff(), 0)}
        if self.login is not None:
            options["username"], options["password"] = self.login
        if self.tls is not None:
            options |= {"ssl": True, **self.tls.query()}
        where = {"unix_socket_path": str(self.socket)} if self.socket else {"host": HOST, "port": self.port.number}
        client = redis.Redis(**where, db=database, protocol=2, **options)
        if database == 0:
            self._client = client
        return client

    def info(self, section: str) -> dict[str, Any]:
        return dict(self.client().info(section))

    def close(self) -> None:
        self.kill()
        if self._client is not None:
            self._client.close()
        self.port.free()


class Topology:
    """What all have. `start` and `stop` are of all processes; `folder` goes with `close`."""

    name: ClassVar[str]
    running: ClassVar[list["Topology"]] = []

    def __init__(self, *, tls: bool | Tls = False, acl: bool = False) -> None:
        self.folder = thrift.temporary_folder()
        self.tls = Tls.make(self.folder / "tls") if tls is True else tls or None
        self.binary = program_with_tls() if self.tls else program()
        self.passwords = Passwords.make() if acl else None
        self.servers: list[Server] = []
        self._copies: dict[Path, Path] = {}
        self.running.append(self)
        if self.passwords:
            (self.folder / "users.acl").write_text(self.passwords.acl_file(), encoding="utf-8")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self in self.running:
            self.running.remove(self)
        for server in self.servers:
            server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *options: str) -> None:
        """Those that don't run, all at once."""
        for server in self.servers:
            server.spawn(*options)
        for server in self.servers:
            server.wait()
        time.sleep(PAUSE_SECONDS)  # only then does a server ask again that met it while it was away

    def stop(self, *, kill: bool = False) -> None:
        for server in self.servers:
            if server.process is not None and not kill:
                server.process.terminate()
        for server in self.servers:
            server.stop(kill=kill)

    def pause(self) -> None:
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        for server in self.servers:
            server.resume()

    def snapshot(self) -> None:
        """Keep what the masters hold now."""
        for server in self.masters():
            server.client().save()
            file = self.folder / str(server.port.number) / "dump.rdb"
            self._copies[file] = file.with_suffix(".copy")
            shutil.copy(file, self._copies[file])

    def restore(self) -> None:
        """Kill all, and start with what was kept last."""
        self.stop(kill=True)
        for file, copy in self._copies.items():
            shutil.copy(copy, file)
        self.start()

    def masters(self) -> list[Server]:
        return [s for s in self.servers if not s.is_sentinel and s.is_running and s.client().role()[0] == "master"]

    def empty(self) -> None:
        for server in self.masters():
            server.client().flushall()

    def url(self, database: int = 0) -> str:
        raise NotImplementedError

    def admin(self, database: int = 0) -> Any:
        """A client of redis-py as an administrator, to the master or to the whole cluster."""
        return self.masters()[0].client(database)

    def fresh_url(self, database: int) -> str:
        """Of nothing yet: another database of this one."""
        return self.url(database)

    def _server(self, file: str, *lines: str) -> Server:
        """A process with a file of the docs and these lines, of which the last of a name holds."""
        port = Port.take()
        docs = lines_of(file, tls=self.tls, acl=self.passwords)
        login = ("admin", self.passwords.admin) if self.passwords else None
        ports = [f"port {0 if self.tls else port.number}", *([f"tls-port {port.number}"] if self.tls else [])]
        folder = self.folder / str(port.number)
        folder.mkdir()
        if file == "sentinel.conf":
            login = None
        elif self.passwords:
            lines = (f"aclfile {self.folder / 'users.acl'}", *lines)
        own = [f"bind {HOST}", *ports, f"dir {folder}", f"logfile {self.folder}/{port.number}.log", *lines]
        # Some options, save among them, would add up.
        last_of_each = {_option(line): line for line in (*docs, *own)}
        server = Server(self.folder, port, list(last_of_each.values()), self.binary, self.tls, login)
        self.servers.append(server)
        return server

    def _url(self, scheme: str, hosts: Sequence[Server], path: str, login: str = "", **query: str) -> str:
        if self.tls:
            scheme, query = scheme.replace("redis", "rediss", 1), query | self.tls.query()
        if self.passwords and not login:
            login = f"{USER}:{self.passwords.user}@"
        addresses = ",".join(server.address for server in hosts)
        return f"{scheme}://{login}{addresses}{path}{'?' if query else ''}{urlencode(query, safe='/')}"


def _option(line: str) -> str:
    words = line.split()
    return " ".join(words[:2]) if words[0] == "sentinel" else words[0]


# Tests write and forget; what is about restarts says otherwise.
QUICK: Final = ("appendonly no", "databases 4096", "min-replicas-to-write 0", "maxmemory 0")


class Single(Topology):
    """One Redis, on a TCP port or a Unix socket; `options`: lines of redis.conf that differ from the docs' file."""

    name = "single"

    def __init__(self, *options: str, tls: bool | Tls = False, acl: bool = False, unix: bool = False) -> None:
        super().__init__(tls=tls, acl=acl)
        socket = [f"unixsocket {self.folder / 'redis.sock'}", "port 0"] if unix else []
        self.server = self._server("redis.conf", *QUICK, *socket, *options)
        if unix:
            self.server.socket = self.folder / "redis.sock"

    def url(self, database: int = 0) -> str:
        if self.server.socket:
            return f"unix://{self.server.socket}?db={database}"
        return self._url("redis", [self.server], f"/{database}")

    def admin(self, database: int = 0) -> Any:
        return self.server.client(database)


class Sentinel(Topology):
    """A master, its replica and three Sentinels, who make the replica a master within a few seconds.

    `password`: what the Sentinels ask for. `options`: lines of redis.conf that differ from the docs' file.
    """

    name = "sentinel"

    def __init__(
        self,
        *options: str,
        tls: bool | Tls = False,
        acl: bool = False,
        password: bool = False,
        down_after_ms: int = 1000,
        failover_timeout_ms: int = 3000,
    ) -> None:
        super().__init__(tls=tls, acl=acl)
        self.sentinel_password = secrets.token_hex(8) if password else ""
        common = (*QUICK, "repl-diskless-sync yes", "repl-diskless-sync-delay 0", *options)
        self.data = [self._server("redis.conf", *common)]
        self.data.append(self._server("redis.conf", *common, f"replicaof {HOST} {self.data[0].port.number}"))
        self.sentinels = []
        for _ in range(3):
            server = self._server(
                "sentinel.conf",
                f"sentinel monitor {SERVICE} {HOST} {self.data[0].port.number} 2",
                f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
                f"sentinel failover-timeout {SERVICE} {failover_timeout_ms}",
                # As they would learn from each other, in seconds.
                f"sentinel known-replica {SERVICE} {HOST} {self.data[1].port.number}",
            )
            server.is_sentinel = True
            server.lines = _in_order(server.lines, self.sentinel_password)
            server.login = (None, self.sentinel_password) if password else None
            self.sentinels.append(server)

    def start(self, *options: str) -> None:
        for server in self.data:
            server.spawn(*options)
        for server in self.sentinels:
            server.spawn()
        for server in self.servers:
            server.wait()
        for server in self.sentinels:
            with contextlib.suppress(redis.ResponseError):  # Redis 6.2 waits for its two seconds
                server.client().execute_command("SENTINEL DEBUG", "publish-period", 100, "info-period", 500)
        self.wait_whole()
        time.sleep(PAUSE_SECONDS)  # as for one Redis

    def wait_whole(self) -> None:
        """Until the replica follows and each Sentinel could do a failover now."""
        until(lambda: len(self.masters()) == 1 and len(self.replicas()) == 1, "one master, one replica")
        until(lambda: self.replica.info("replication")["master_link_status"] == "up", "the replica follows")
        until(lambda: all(map(self._could_fail_over, self.sentinels)), "the Sentinels know each other")

    def _could_fail_over(self, sentinel: Server) -> bool:
        known = sentinel.client().sentinel_master(SERVICE)
        if int(known["num-other-sentinels"]) != 2 or int(known["num-slaves"]) != 1:
            return False
        replica = sentinel.client().sentinel_slaves(SERVICE)[0]
        sentinel.client().execute_command("SENTINEL CKQUORUM", SERVICE)  # raises
        return (known["flags"], replica["flags"], replica["master-link-status"]) == ("master", "slave", "ok")

    def replicas(self) -> list[Server]:
        return [s for s in self.data if s.is_running and s.client().role()[0] == "slave"]

    @property
    def master(self) -> Server:
        (server,) = self.masters()
        return server

    @property
    def replica(self) -> Server:
        (server,) = self.replicas()
        return server

    def promoted(self, before: Server) -> Server:
        """Waits until the Sentinels tell of another master than `before`, and it is one."""

        def another() -> Server | None:
            for server in self.data:
                if server is not before and server.is_running and server.client().role()[0] == "master":
                    told = [
                        s.client().sentinel_get_master_addr_by_name(SERVICE) for s in self.sentinels if s.is_running
                    ]
                    return server if told and all(a == (HOST, server.port.number) for a in told) else None
            return None

        server: Server = until(another, "the Sentinels made another master")
        return server

    def failover(self) -> Server:
        """An orderly one; returns the new master."""
        before = self.master
        until(lambda: self.sentinels[0].client().execute_command("SENTINEL FAILOVER", SERVICE), "a failover begins")
        return self.promoted(before)

    def url(self, database: int = 0) -> str:
        query = {"sentinel_password": self.sentinel_password} if self.sentinel_password else {}
        return self._url("redis+sentinel", self.sentinels, f"/{SERVICE}/{database}", **query)


def _in_order(lines: Sequence[str], password: str) -> list[str]:
    """A Sentinel wants to hear of the service before its options."""
    lines = [line for line in lines if not line.startswith("requirepass")]
    lines += [f"requirepass {password}"] if password else []
    return sorted(lines, key=lambda line: (line.startswith("sentinel"), "known-" in line, "monitor" not in line))


class Everywhere(RedisCluster):
    """Sees to it that what isn't of one key is of all masters, as with a single Redis."""

    COMMAND_FLAGS = RedisCluster.COMMAND_FLAGS | {"CONFIG SET": RedisCluster.PRIMARIES}

    def keys(self, *args: Any, **_options: Any) -> Any:
        found: list[Any] = []
        for node in self.get_primaries():
            found += super().keys(*args, target_nodes=node)
        return found


class Cluster(Topology):
    """Masters with a third of the slots each, and `replicas` replicas of each."""

    name = "cluster"

    def __init__(
        self,
        *options: str,
        masters: int = 3,
        replicas: int = 1,
        tls: bool | Tls = False,
        acl: bool = False,
        node_timeout_ms: int = 1000,
    ) -> None:
        super().__init__(tls=tls, acl=acl)
        self.size = masters
        self._admin: Any = None
        common = [*lines_of("cluster.conf", tls=self.tls, acl=None), *QUICK]
        common += ["databases 1", "repl-diskless-sync yes", "repl-diskless-sync-delay 0"]
        common += [f"cluster-node-timeout {node_timeout_ms}", *options]
        for _ in range(masters * (1 + replicas)):
            self._server("redis.conf", *common)
        self.ids = {server.port.number: secrets.token_hex(20) for server in self.servers}
        self._form()

    def _form(self) -> None:
        """Leaves on each node what it would know when an administrator had made the cluster.

        CLUSTER MEET and its gossip take seconds; `tests/storage/test_redis_topologies.py` needs the result only.
        """
        edges = [SLOTS * index // self.size for index in range(self.size + 1)]
        for me in self.servers:
            lines = []
            for index, server in enumerate(self.servers):
                port = server.port.number
                master = self.servers[index % self.size]
                is_master = server is master
                flags = ("myself," if server is me else "") + ("master" if is_master else "slave")
                of = "-" if is_master else self.ids[master.port.number]
                slots = f" {edges[index]}-{edges[index + 1] - 1}" if is_master else ""
                epoch = index % self.size + 1
                state = "connected" if server is me else "disconnected"
                lines.append(
                    f"{self.ids[port]} {HOST}:{port}@{port + 10000} {flags} {of} 0 0 {epoch} {state}{slots}"
                )
            lines.append(f"vars currentEpoch {self.size} lastVoteEpoch 0")
            nodes = self.folder / str(me.port.number) / "nodes.conf"
            nodes.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self, *options: str) -> None:
        super().start(*options)
        self.wait_whole()

    def wait_whole(self) -> None:
        """Until every running node finds the cluster whole and every replica follows."""
        running = [server for server in self.servers if server.is_running]

        def whole(server: Server) -> bool:
            if server.client().execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                return False
            known = server.client().execute_command("CLUSTER NODES").values()
            if sum("fail" not in node["flags"] and node["connected"] for node in known) < len(running):
                return False
            replication = server.info("replication")
            return replication["role"] == "master" or replication["master_link_status"] == "up"

        for server in running:
            until(lambda server=server: whole(server), f"the cluster is whole for {server.address}")

    def master_of(self, key: str | int) -> Server:
        """Who has this key, or slot, as the running masters see it."""
        slot = key if isinstance(key, int) else key_slot(key.encode())

        def find() -> Server | None:
            for server in self.masters():
                me = server.client().execute_command("CLUSTER NODES")[server.address]
                if any(int(slots[0]) <= slot <= int(slots[-1]) for slots in me["slots"]):
                    return server
            return None

        found: Server = until(find, f"a master has slot {slot}")
        return found

    def replicas_of(self, master: Server) -> list[Server]:
        return [
            server
            for server in self.servers
            if server.is_running
            and (role := server.client().role())[0] == "slave"
            and int(role[2]) == master.port.number
        ]

    def failover(self, master: Server) -> Server:
        """An orderly one: a replica takes over without loss. Returns it."""
        replica = self.replicas_of(master)[0]
        replica.client().execute_command("CLUSTER FAILOVER")
        until(lambda: replica.client().role()[0] == "master", f"{replica.address} became a master")
        return replica

    def move_slot(
        self, slot: int, source: Server, target: Server, *, midway: Callable[[], object] = lambda: None
    ) -> int:
        """Really, key by key, as `redis-cli --cluster reshard` does. Returns how many keys went.

        `midway` runs when some of the keys are here and some there: what asks then gets ASK or TRYAGAIN.
        """
        here, there = source.client(), target.client()
        there.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.ids[source.port.number])
        here.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.ids[target.port.number])
        login = ["AUTH2", *target.login] if target.login else []
        moved = 0
        while keys := here.execute_command("CLUSTER GETKEYSINSLOT", slot, 1 if moved == 0 else 100):
            here.execute_command("MIGRATE", HOST, target.port.number, "", 0, 5000, *login, "KEYS", *keys)
            if moved == 0:
                midway()
            moved += len(keys)
        for server in [target, source, *(s for s in self.masters() if s not in (source, target))]:
            server.client().execute_command("CLUSTER SETSLOT", slot, "NODE", self.ids[target.port.number])
        return moved

    def url(self, database: int = 0) -> str:
        assert database == 0, "a cluster has one database"
        return self._url("redis+cluster", self.servers[: self.size], "")

    def fresh_url(self, database: int) -> str:
        self.empty()
        return self.url()

    def admin(self, database: int = 0) -> Any:
        if self._admin is None:
            options: dict[str, Any] = {"decode_responses": True, "protocol": 2}
            if self.passwords:
                options |= {"username": "admin", "password": self.passwords.admin}
            if self.tls:
                options |= {"ssl": True, **self.tls.query()}
            nodes = [ClusterNode(HOST, server.port.number) for server in self.servers if server.is_running]
            self._admin = Everywhere(startup_nodes=nodes, **options)
        return self._admin

    def close(self) -> None:
        if self._admin is not None:
            self._admin.close()
        super().close()


# By the names that TOKENSERVER_TEST_REDIS takes. A shared cluster is emptied and not hurt, so it needs no replicas.
SHARED: Final[dict[str, Callable[[], Topology]]] = {
    "single": lambda: Single(unix=True),
    "tls": lambda: Single(tls=True),
    "acl": lambda: Single(acl=True),
    "sentinel": Sentinel,
    "cluster": lambda: Cluster(replicas=0),
}


def serving(url: str) -> Topology | None:
    """Which of those that this process started has this URL, or is behind it."""
    for topology in Topology.running:
        for server in topology.servers:
            if f"{server.address}/" in f"{url}/" or (server.socket and str(server.socket) in url):
                return topology
    return None
