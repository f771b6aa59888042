"""Servers of their own, started as an operator starts them: the console script, two workers; one on embedded
stores, or several nodes that share theirs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

COMMAND = Path(sys.executable).with_name("tokenserver")
PASSWORD = "correct horse 7 battery"
ADMIN_PASSWORD = "first admin of the tests"
START_SECONDS = 120
STOP_SECONDS = 60


@dataclass
class LiveServer:
    """`environment`: what a command needs to meet the same stores and keys."""

    url: str
    folder: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def at(cls, folder: Path, **options: str) -> "LiveServer":
        """`options`: settings without their prefix, in small letters; `{port}` is the port. Not started yet."""
        port = free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKENSERVER_")} | {
            "TOKENSERVER_PORT": str(port),
            "TOKENSERVER_WORKERS": "2",
            "TOKENSERVER_DATA_DIR": str(folder / "var"),
            "TOKENSERVER_KEYS_DIR": str(folder / "keys"),
            "TOKENSERVER_ADMIN_PASSWORD": ADMIN_PASSWORD,
        }
        environment |= {f"TOKENSERVER_{n.upper()}": v.replace("{port}", str(port)) for n, v in options.items()}
        return cls(f"http://127.0.0.1:{port}", folder, environment)

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve"],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        assert self.process is not None
        _wait_until_ready(self.url, self.process, self.log_file)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def workers(self) -> set[int]:
        """The pids of its worker processes."""
        assert self.process is not None
        return {pid for pid in _descendants(self.process.pid) if is_worker(pid)}

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, the stores too."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Without waiting for balancers, as the second signal says. It may have ended already."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            if self.process.poll() is None:
                self.kill()

    def run(self, *arguments: str, status: int | None = 0) -> str:
        """What a `tokenserver` command prints. `status`: the exit code that it must have; None for any."""
        done = subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert status in {done.returncode, None}, f"tokenserver {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def post(self, path: str, status: int = 200, **options: Any) -> dict[str, Any]:
        response = httpx.post(self.url + path, timeout=30, trust_env=False, verify=False, **options)
        assert response.status_code == status, response.text
        return dict(response.json())

    def me(self, token: str, status: int = 200) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(f"{self.url}/users/me", headers=headers, timeout=30, trust_env=False, verify=False)
        assert response.status_code == status, response.text
        return dict(response.json())

    def create_client(self, client_id: str, *grants: str, scope: str) -> tuple[str, str]:
        """Its id and secret."""
        options = ["--id", client_id, "--name", client_id, "--scope", scope, "--json"]
        for grant in grants:
            options += ["--grant", grant]
        created = json.loads(self.run("client", "create", *options))
        return created["client_id"], created["client_secret"]

    def signed_in(self, username: str) -> dict[str, Any]:
        """The token response of a user who is registered first, unless another test did so: tests of one module
        needn't run one after the other."""
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        response = httpx.post(self.url + "/auth/register", json=body, timeout=30, trust_env=False, verify=False)
        assert response.status_code in {201, 409}, response.text
        return self.post("/auth/login", json={"login": username, "password": PASSWORD})


@pytest.fixture(scope="session")
def live_server() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@contextmanager
def serving(**options: str) -> Iterator[LiveServer]:
    """`options`: settings without their prefix, in small letters."""
    folder = Path(tempfile.mkdtemp(prefix="ts-live-"))
    server = LiveServer.at(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def sharing(count: int = 2, **options: str) -> Iterator[list[LiveServer]]:
    """Nodes of one deployment: one ring of keys, and the stores that `options` must name, which the first node
    prepares. Each has a folder and a log of its own.
    """
    assert {"database_url", "redis_url"} <= options.keys()
    shared = Path(tempfile.mkdtemp(prefix="ts-nodes-"))
    made: list[LiveServer] = []
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, shared, ignore_errors=True)
        for number in range(count):
            folder = shared / str(number)
            folder.mkdir()
            issuer = {"issuer": made[0].url} if made else {}
            node = LiveServer.at(folder, keys_dir=str(shared / "keys"), **(issuer | options))
            stack.callback(node.stop)
            made.append(node)
            node.launch()
            if number == 0:
                node.wait_until_ready()
        for node in made:
            node.wait_until_ready()
        yield made


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(f"{url}/readyz", timeout=30):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    pytest.fail(f"the server did not become ready:\n{log_file.read_text(errors='replace')[-4000:]}")


def is_worker(pid: int) -> bool:
    """Of what descends from a server. The process that loads the program for workers has one thread."""
    with suppress(OSError):  # it has ended
        return b"redis" not in _command_line(pid) and len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    return False


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def _command_line(pid: int) -> bytes:
    """Empty when the process has ended."""
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""
