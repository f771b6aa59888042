"""Servers that are measured: `tokenserver serve` as an operator starts it, with everything on, on embedded stores
or on a PostgreSQL and a Redis of their own, all on loopback.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.processes import REDIS, SQL, Tree, cpu_ms, is_program, main_thread_ms, pss_mb
from tests.ports import free_port
from tests.postgres_servers import PostgresServer, postgres_server
from tests.redis_servers import Single
from tokenserver.audit.trail import events_key
from tokenserver.tokens.refresh_token import rotations_key

COMMAND: Final = Path(sys.executable).with_name("tokenserver")
ADMIN: Final = ("admin@localhost", "first admin of the benchmark")
PATIENCE: Final = 120.0
# As PostgreSQL's documentation wants them for data that matters, unlike in the tests.
DURABLE: Final = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "128MB"}
# Of one Redis. To search for them would take it half a second with 10⁶ families.
STREAMS: Final = (events_key(0), rotations_key(0))


@dataclass(frozen=True)
class Stores:
    """PostgreSQL and Redis, with databases of both for several servers."""

    sql: PostgresServer
    redis: Single

    def pids(self) -> tuple[int, ...]:
        processes = (self.sql.process, self.redis.server.process)
        return tuple(process.pid for process in processes if process is not None)

    def memory_mb(self) -> float:
        return pss_mb(Tree.of(*self.pids()).stores)


@contextmanager
def stores() -> Iterator[Stores]:
    with postgres_server(**DURABLE) as sql, Single("appendonly yes", "databases 16") as single:
        yield Stores(sql, single)


@dataclass
class Deployment:
    """`name`: of its stores. `starts`: seconds from the start of the program to the first 200, of the first and the
    second start. `stores`: those that it didn't start itself, and its `database` there."""

    name: str
    folder: Path
    port: int
    environment: dict[str, str]
    redis: Any
    stores: Stores | None = None
    database: str = ""
    starts: list[float] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        started = time.perf_counter()
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve"], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        wait_for_200(self.port, "/readyz", self.process, self.folder / "server.log")
        self.starts.append(time.perf_counter() - started)

    def stop(self) -> None:
        """The second signal: without waiting for balancers."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [COMMAND, *arguments], env=self.environment, cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    # What is measured

    def tree(self) -> Tree:
        assert self.process is not None
        return Tree.of(self.process.pid)

    def cpu_ms(self) -> float:
        return cpu_ms(self.tree().own)

    def store_cpu_ms(self) -> tuple[float, float]:
        """Of Redis and of PostgreSQL."""
        pids = Tree.of(*self.stores.pids()).stores if self.stores else self.tree().stores
        redis_ms, sql_ms = (main_thread_ms(pid for pid in pids if is_program(pid, name)) for name in (REDIS, SQL))
        return redis_ms, sql_ms

    def memory_mb(self) -> tuple[float, float]:
        """PSS without and with the stores."""
        tree = self.tree()
        own = pss_mb(tree.own)
        return own, own + (self.stores.memory_mb() if self.stores else pss_mb(tree.stores))

    def settle(self, seconds: float = 5.0) -> bool:
        """Waits until what requests left to be carried from Redis into SQL is there: that is part of their cost."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(map(self.redis.xlen, STREAMS)):
                return True
            time.sleep(0.02)
        return False


def wait_for_200(port: int, path: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            if connection.recv(64)[9:12] == b"200":
                return
        time.sleep(0.005)
    raise SystemExit(f"the server did not become ready:\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def serving(
    name: str, *, workers: int, starts: int = 1, shared: Stores | None = None, number: int = 0, **options: str
) -> Iterator[Deployment]:
    """`name`: `embedded` or `postgresql`. `starts`: how often it is started, on the same data from the second time
    on. `shared`: stores that others use too, and the `number` of its databases there. `options`: settings without
    their prefix, in small letters."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ts-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if name == "postgresql":
            used = shared or stack.enter_context(stores())
            database = f"site{number}"
            used.sql.sql(f"CREATE DATABASE {database}")
            options = {"database_url": used.sql.url(database), "redis_url": used.redis.url(number)} | options
            client = used.redis.admin(number)
        else:
            used, database = None, ""
            client = redis.Redis(unix_socket_path=str(folder / "var/redis.sock"), decode_responses=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKENSERVER_")} | {
            "TOKENSERVER_WORKERS": str(workers),
            "TOKENSERVER_DATA_DIR": str(folder / "var"),
            "TOKENSERVER_KEYS_DIR": str(folder / "keys"),
            "TOKENSERVER_ADMIN_PASSWORD": ADMIN[1],
        }
        port = free_port()
        environment |= {f"TOKENSERVER_{key.upper()}": value for key, value in options.items()}
        environment["TOKENSERVER_PORT"] = str(port)
        made = Deployment(name, folder, port, environment, client, used, database)
        stack.callback(made.stop)
        for each in range(starts):
            if each:
                made.stop()
            made.start()
        yield made
