"""A server of its own, started as an operator starts it: the console script, two workers, embedded stores."""

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
from contextlib import contextmanager
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

    def start(self) -> None:
        log_file = self.folder / "server.log"
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve"],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait_until_ready(self.url, self.process, log_file)

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, the stores too."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
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
        response = httpx.post(self.url + path, timeout=30, trust_env=False, **options)
        assert response.status_code == status, response.text
        return dict(response.json())

    def me(self, token: str, status: int = 200) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        response = httpx.get(f"{self.url}/users/me", headers=headers, timeout=30, trust_env=False)
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
        """The token response of a user who is registered first."""
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD}
        self.post("/auth/register", 201, json=body)
        return self.post("/auth/login", json={"login": username, "password": PASSWORD})


@pytest.fixture(scope="session")
def live_server() -> Iterator[LiveServer]:
    with serving() as server:
        yield server


@contextmanager
def serving(**options: str) -> Iterator[LiveServer]:
    """`options`: settings without their prefix, in small letters."""
    folder = Path(tempfile.mkdtemp(prefix="ts-live-"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKENSERVER_")} | {
        "TOKENSERVER_PORT": str(port),
        "TOKENSERVER_WORKERS": "2",
        "TOKENSERVER_DATA_DIR": str(folder / "var"),
        "TOKENSERVER_KEYS_DIR": str(folder / "keys"),
        "TOKENSERVER_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
    environment |= {f"TOKENSERVER_{name.upper()}": value for name, value in options.items()}
    server = LiveServer(url, folder, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


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
