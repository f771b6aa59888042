"""Deployments of their own, each with its folder: commands run in this process, servers are real processes."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pytest

from tests.listeners import listen
from tests.live_server import is_worker
from tests.ports import free_port
from tokenserver.cli import program
from tokenserver.cli.command import run

__all__ = ["listen"]

COMMAND = Path(sys.executable).with_name("tokenserver")
PASSWORD = "correct horse 7 battery"
ADMIN_PASSWORD = "first admin of the tests"
ALG = "EdDSA"  # its keys are made and loaded much faster than RSA's
PATIENCE = 60.0


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes() -> dict[int, tuple[int, str]]:
    """pid → parent and command line, of what is alive."""
    shown = subprocess.run(["ps", "-wweo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in shown.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if not row[2].startswith("Z")}


class Done(NamedTuple):
    """What a command that ran in this process answered."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """All that it said on stderr."""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("tokenserver: ").rstrip()


@dataclass
class Deployment:
    """`variables`: TOKENSERVER_* of every command and server."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TOKENSERVER_")}
        return inherited | {f"TOKENSERVER_{name}": value for name, value in self.variables.items()}

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> Done:
        """A command, in this process."""
        before, folder, streams = dict(os.environ), Path.cwd(), sys.stdin
        out, err = io.StringIO(), io.StringIO()
        try:
            os.environ.clear()
            os.environ.update(Deployment(self.folder, self.variables | variables).environment)
            os.chdir(self.folder)
            sys.stdin = io.StringIO(stdin)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(program, arguments)
        finally:
            sys.stdin = streams
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(before)
        return Done(code, out.getvalue(), err.getvalue())

    def refused(self, *arguments: str, **options: Any) -> str:
        """The one line that a failing command says."""
        done = self.run(*arguments, **options)
        assert done.code != 0
        assert done.out == ""
        return done.line

    def serve_refused(self, *arguments: str, **variables: str) -> str:
        """The one line with which a server refuses to start; in a process of its own, as it handles signals."""
        done = subprocess.run(
            [COMMAND, "serve", *arguments],
            env=Deployment(self.folder, self.variables | variables).environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 1
        return Done(done.returncode, done.stdout, done.stderr).line

    def serve(self, *arguments: str, path: str = "", **variables: str) -> "Server":
        """`path`: a PYTHONPATH."""
        return Server(Deployment(self.folder, self.variables | variables), arguments, path)

    def sql(self, statement: str) -> list[Any]:
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.folder / "var" / "tokenserver.sqlite")) as connection:
            rows = connection.execute(statement).fetchall()
            connection.commit()
        return rows

    def ripen_keys(self) -> None:
        """As if the ring were two days old, so that the next key may sign."""
        manifest = self.folder / "keys" / "ring.json"
        ring = json.loads(manifest.read_text())
        past = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds").replace("+00:00", "Z")
        for entry in ring["entries"]:
            entry.update({name: past for name in entry if name.endswith("_at")})
        manifest.write_text(json.dumps(ring))


class Server:
    """`tokenserver serve` in a session of its own, as a terminal would start it."""

    def __init__(self, deployment: Deployment, arguments: tuple[str, ...], path: str) -> None:
        self.deployment = deployment
        self.url = f"http://127.0.0.1:{deployment.variables['PORT']}"
        self.lines: list[str] = []
        self.log = deployment.folder / "server.log"
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(COMMAND), "serve", *arguments],
                env=deployment.environment
                | ({"PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}"} if path else {}),
                cwd=deployment.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        family = self.family()
        if self.process.poll() is None:
            self.process.kill()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    @property
    def out(self) -> str:
        return "".join(self.lines)

    def ready(self) -> Self:
        """Waits for its last word; `seconds` is how long that took."""
        wait_until(lambda: "README" in self.out or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        self.seconds = time.monotonic() - self.started
        return self

    def family(self) -> list[int]:
        """The pids of all that descends from it."""
        found, alive = [self.process.pid], processes()
        for pid in found:
            found += [child for child, (parent, _) in alive.items() if parent == pid]
        return found[1:]

    def commands(self) -> list[str]:
        """Their command lines."""
        alive = processes()
        return [alive[pid][1] for pid in self.family() if pid in alive]

    def workers(self) -> list[int]:
        return [pid for pid in self.family() if is_worker(pid)]

    def end(self, number: int, *, group: bool = False) -> int:
        """The exit code; nothing that descends from it may be left."""
        family = self.family()
        assert len(family) >= 3
        (os.killpg if group else os.kill)(self.process.pid, number)
        code = self.process.wait(PATIENCE)
        left = processes().keys() & set(family)
        assert number == signal.SIGKILL or not left
        wait_until(lambda: not processes().keys() & set(family))
        return code

    # What clients do; every request on a connection of its own, so that all workers get some

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, trust_env=False, verify=False, **options)

    def login(self, login: str = "admin", password: str = ADMIN_PASSWORD) -> dict[str, Any]:
        response = self.post("/auth/login", json={"login": login, "password": password})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def register(self, username: str) -> httpx.Response:
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        return self.post("/auth/register", json=body)

    def refresh(self, tokens: dict[str, Any]) -> httpx.Response:
        return self.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})

    def statuses(self, tokens: dict[str, Any], count: int = 16) -> set[int]:
        """Of `/users/me` with this access token, asked until surely every worker has answered."""
        header = {"Authorization": f"Bearer {tokens['access_token']}"}
        asked = (
            httpx.get(f"{self.url}/users/me", headers=header, timeout=30, trust_env=False, verify=False)
            for _ in range(count)
        )
        return {response.status_code for response in asked}

    def kids(self) -> list[str]:
        jwks = httpx.get(f"{self.url}/.well-known/jwks.json", timeout=30, trust_env=False, verify=False).json()
        return [key["kid"] for key in jwks["keys"]]


@pytest.fixture(scope="session")
def prepared() -> Iterator[Path]:
    """The folder of an initialised deployment, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="ts"))
    assert Deployment(folder, {"ADMIN_PASSWORD": ADMIN_PASSWORD, "SIGNING_ALG": ALG}).run("init").code == 0
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def empty() -> Iterator[Deployment]:
    """Nothing is there yet."""
    folder = Path(tempfile.mkdtemp(prefix="ts"))
    yield Deployment(folder, {"PORT": str(free_port()), "WORKERS": "2", "SIGNING_ALG": ALG})
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def deployment(empty: Deployment, prepared: Path) -> Deployment:
    """Initialised, with the admin `admin` and ADMIN_PASSWORD."""
    shutil.copytree(prepared, empty.folder, dirs_exist_ok=True)
    return empty


@pytest.fixture(scope="module")
def server(prepared: Path) -> Iterator[Server]:
    """One running server for a module; its keys are old enough to be rotated."""
    folder = Path(tempfile.mkdtemp(prefix="ts"))
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    deployment = Deployment(folder, {"PORT": str(free_port()), "WORKERS": "2", "SIGNING_ALG": ALG})
    deployment.ripen_keys()
    with deployment.serve() as running:
        yield running.ready()
    shutil.rmtree(folder, ignore_errors=True)
