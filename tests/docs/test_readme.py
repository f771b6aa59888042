"""What the README shows is done to a live server, as its reader would do it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.docs.fences import README, ROOT, marked
from tests.live_server import LiveServer
from tests.ports import free_port

PRINTED_ADDRESS = "http://127.0.0.1:8000"


def paste(live_server: LiveServer, *marks: str) -> str:
    """What bash prints for these blocks, pasted one after the other."""
    script = "\n".join(marked(README, f"run: {mark}") for mark in marks)
    assert script.startswith(f"TS={PRINTED_ADDRESS}\n")
    environment = live_server.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-eu"],
        input=script.replace(PRINTED_ADDRESS, live_server.url),
        cwd=live_server.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def token(live_server: LiveServer) -> str:
    return str(live_server.signed_in("reader")["access_token"])


def test_the_pasted_session(live_server):
    printed = paste(live_server, "session")
    assert printed == marked(README, "prints: session")
    assert [line[-3:] for line in printed.splitlines()] == ["201", "200", "200", "200", "200", "200", "401", "401"]


def test_the_session_can_be_pasted_again(live_server):
    assert paste(live_server, "session") == marked(README, "prints: session")


def test_a_token_for_a_program(live_server):
    printed = paste(live_server, "session", "client").removeprefix(marked(README, "prints: session"))
    assert printed == marked(README, "prints: client")


def test_pyjwt(live_server, token):
    snippet = marked(README, "run: pyjwt").replace(PRINTED_ADDRESS, live_server.url)
    assert len([line for line in snippet.splitlines() if line]) <= 5
    names = {"token": token}
    exec(snippet, names)  # the README's own words
    assert names["claims"]["scope"] == "posts:create"


def test_a_guarded_route(live_server, token):
    names = {"__name__": "readme"}
    exec(marked(README, "run: flask").replace(PRINTED_ADDRESS, live_server.url), names)
    client = names["app"].test_client()
    assert client.post("/posts").status_code == 401
    response = client.post("/posts", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 201
    assert response.json["author"] == live_server.me(token)["id"]


@pytest.fixture(scope="module")
def resource(live_server):
    """The URL of docs/examples/resource_server.py, run as its first line says."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "resource_server", "run", "--port", str(port)],
        cwd=ROOT / "docs" / "examples",
        env={
            **os.environ,
            "ISSUER": live_server.url,
            "AUDIENCE": live_server.url,
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url, timeout=30, trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, "the example does not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


class TestExample:
    @staticmethod
    def call(method, url, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False)

    def test_a_good_token(self, resource, live_server, token):
        response = self.call("GET", f"{resource}/me", token)
        assert response.status_code == 200
        assert response.json() == {"sub": live_server.me(token)["id"], "client_id": "first-party"}
        assert self.call("POST", f"{resource}/posts", token).status_code == 201

    def test_no_token(self, resource, live_server):
        response = self.call("GET", f"{resource}/me")
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == f'Bearer realm="{live_server.url}"'

    def test_an_altered_token(self, resource, token):
        place = token.rindex(".") + 10
        altered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        response = self.call("GET", f"{resource}/me", altered)
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]

    def test_too_small_a_scope(self, resource, live_server):
        client = live_server.create_client("example-job", "client_credentials", scope="users:read")
        form = {"grant_type": "client_credentials"}
        token = live_server.post("/oauth/token", data=form, auth=client)["access_token"]
        assert self.call("GET", f"{resource}/me", token).status_code == 200
        response = self.call("POST", f"{resource}/posts", token)
        assert response.status_code == 403
        assert 'scope="posts:create"' in response.headers["WWW-Authenticate"]
