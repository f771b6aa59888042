"""Stores of the experiments' own: processes on loopback that may be killed, stopped, filled and restored."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg2
import redis

from tests.ports import free_port
from tokenserver.storage.redis_server import Program

PATIENCE: Final = 30.0
# Found without importing it, which would make files.
_wheel = importlib.util.find_spec("pgserver")
POSTGRES: Final = Path(str(_wheel and _wheel.origin)).parent / "pginstall" / "bin"
# PostgreSQL refuses to run as root.
SOMEBODY: Final = "nobody"


def wait_until(what: Callable[[], object], told: str, patience: float = PATIENCE) -> float:
    """Polls until it is true; how many seconds that took."""
    started = time.monotonic()
    while not what():
        if time.monotonic() - started > patience:
            raise TimeoutError(f"{told}: not within {patience:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - started


@dataclass
class RedisProcess:
    """`options`: as on its command line, without the dashes. Everything else is what the embedded Redis has."""

    folder: Path
    port: int = field(default_factory=free_port)
    options: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, timeout: float = 2) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=timeout, decode_responses=True)

    def start(self, *, wait: bool = True, **popen: Any) -> None:
        durable = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction"}
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder)} | durable | self.options
        command = [Program.find().path]
        for name, value in options.items():
            command += [
                f"--{name}",
                *(value.split() if name in {"replicaof", "client-output-buffer-limit"} else [value]),
            ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **popen)
        if wait:
            wait_until(self.answers, "redis-server answers")

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client(0.5) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class PostgresProcess:
    """PostgreSQL of the wheel. `template`: a folder that `initdb` made once for all of them."""

    def __init__(self, folder: Path, template: Path, **options: str) -> None:
        self.folder = folder
        self.template = template
        self.port = free_port()
        self.options = {"fsync": "on", "max_connections": "100"} | options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def make(self) -> None:
        if not (self.template / "PG_VERSION").exists():
            _give_away(self.template)
            command = [
                POSTGRES / "initdb",
                "-D",
                self.template,
                "-U",
                "postgres",
                "--auth=trust",
                "--encoding=utf8",
            ]
            subprocess.run(
                [*command, "--no-sync"],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **_as_somebody(),
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        if not self.data.exists():
            self.data.mkdir()
        _give_away(self.data)
        subprocess.run(["cp", "-a", f"{self.template}/.", self.data], check=True)

    def start(self, *, wait: bool = True) -> None:
        if not (self.data / "PG_VERSION").exists():
            self.make()
        command: list[Any] = [POSTGRES / "postgres", "-D", self.data, "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        for name, value in self.options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **_as_somebody()
            )
        if wait:
            wait_until(self.answers, "PostgreSQL answers")

    @contextlib.contextmanager
    def connect(self, **options: Any) -> Iterator[Any]:
        connection = psycopg2.connect(self.url, connect_timeout=3, **options)
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def answers(self) -> bool:
        with contextlib.suppress(psycopg2.Error), self.connect():
            return True
        return False

    def kill(self) -> None:
        """SIGKILL to all of its processes at once. Each backend leads a session of its own, and the next start is
        refused while one of them still holds the shared memory."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it starts no more
        backends = psutil.Process(self.process.pid).children(recursive=True)
        for each in (self.process, *backends):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        psutil.wait_procs(backends, timeout=PATIENCE)
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # its number may be somebody else's by now

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # fast: connections are ended
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def _as_somebody() -> dict[str, Any]:
    return {"user": SOMEBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _give_away(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        shutil.chown(folder, SOMEBODY)
