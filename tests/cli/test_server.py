"""`tokenserver serve` and `init`, with real processes: nothing acknowledged is lost, nothing is left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import ADMIN_PASSWORD, PASSWORD, PATIENCE, Deployment, Server, processes, wait_until
from tests.listeners import Listener

PASSWORD_SHOWN = re.compile(r"^Password: +(\S+)", re.MULTILINE)


def test_the_first_start_makes_everything_and_the_second_keeps_it(empty: Deployment):
    (empty.folder / ".env").write_text("TOKENSERVER_DATA_DIR=data\nTOKENSERVER_ADMIN_EMAIL=root@example.org\n")
    with empty.serve() as server:
        server.ready()
        for step in ("embedded Redis", "schema: empty to", "signing key", "first admin", "2 workers", "in all"):
            assert re.search(rf"^ +\d+\.\d\d s  .*{step}", server.out, re.MULTILINE), server.out
        assert f"Ready at {server.url}\n" in server.out
        shown = PASSWORD_SHOWN.search(server.out)
        assert shown
        assert "First admin: root@example.org" in server.out
        tokens = first_token(server)
        assert server.statuses(tokens) == {200}
        assert server.register("ann").status_code == 201
        ann = server.login("ann", PASSWORD)
        assert server.end(signal.SIGINT, group=True) == 0  # what the terminal does
    assert shown[1] not in server.log.read_text()
    assert not (empty.folder / "var").exists()

    with empty.serve() as server:
        server.ready()
        assert "First admin" not in server.out
        assert '"login": "root@example.org", "password": "YOUR-PASSWORD"' in server.out
        assert shown[1] not in server.out
        assert server.login("root@example.org", shown[1])
        renewed = server.refresh(ann)
        assert renewed.status_code == 200
        assert server.statuses(renewed.json()) == {200}
        assert server.end(signal.SIGTERM) == 0
    assert no_noise(server)


def first_token(server: Server) -> Any:
    """What the printed line gets."""
    line = next(line.strip() for line in server.lines if "curl" in line)
    shell = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=30)
    return json.loads(shell.stdout)


def no_noise(server: Server) -> bool:
    """The log has our own lines alone, and no complaint."""
    lines = server.log.read_text().splitlines()
    assert [line for line in lines if " INFO tokenserver." not in line] == []
    return any("tokenserver.request POST /auth/login 200" in line for line in lines)


def test_a_server_that_is_killed_leaves_nothing_behind_and_loses_nothing(deployment: Deployment):
    with deployment.serve() as server:
        server.ready()
        assert server.register("ann").status_code == 201
        ann = server.refresh(server.login("ann", PASSWORD)).json()
        acknowledged = []

        def register() -> None:
            for number in range(1000):
                try:
                    if server.register(f"user{number}").status_code != 201:
                        return
                except httpx.HTTPError:
                    return
                acknowledged.append(f"user{number}")

        thread = threading.Thread(target=register)
        thread.start()
        wait_until(lambda: len(acknowledged) >= 8)
        family = server.family()
        assert len(server.workers()) == 2
        assert len(family) == 3  # and Redis: the process that loaded the program has ended
        server.process.kill()
        server.process.wait()
        again = deployment.serve()  # at once
        thread.join()
        wait_until(lambda: not processes().keys() & set(family))

    with again as server:
        server.ready()
        names = {each["username"] for each in deployment.run("user", "list", "--json").data}
        assert {"ann", *acknowledged} <= names
        assert server.login(acknowledged[-1], PASSWORD)
        renewed = server.refresh(ann)
        assert renewed.status_code == 200, renewed.text
        assert server.statuses(renewed.json()) == {200}

        # A worker that dies is replaced, and the other one answers meanwhile.
        victim, other = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2 and victim not in server.workers())
        assert other in server.workers()
        wait_until(lambda: server.statuses(renewed.json(), 8) == {200})

        # And so is the process that loads the program for the next one.
        wait_until(lambda: len(server.family()) == 3)
        before = server.family()
        victim, other = server.workers()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: set(server.family()) - set(before))
        for loader in set(server.family()) - set(before):
            os.kill(loader, signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2 and victim not in server.workers())
        assert other in server.workers()
        wait_until(lambda: server.statuses(renewed.json(), 8) == {200})
        assert server.end(signal.SIGTERM, group=True) == 0


@pytest.mark.parametrize("is_redis", [True, False], ids=["Redis", "loader"])
def test_an_interrupted_start_ends_cleanly(deployment: Deployment, is_redis: bool):
    """As soon as a process of this kind is there."""
    with deployment.serve() as server:
        wait_until(lambda: any(("redis" in command) == is_redis for command in server.commands()))
        family = server.family()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        wait_until(lambda: not processes().keys() & set(family))
    assert server.log.read_text() == ""


def test_requests_that_run_are_finished_first(deployment: Deployment):
    """Who heeds `Connection: close` loses none; half of them hash a password when the signal comes."""
    answers: list[int] = []

    def sign_in(server: Server) -> None:
        while True:
            answer = server.post("/auth/login", json={"login": "admin", "password": "wrong"})
            answers.append(answer.status_code)
            if answer.headers.get("Connection") == "close":
                return

    with deployment.serve(DRAIN_DELAY="2") as server:
        server.ready()
        threads = [threading.Thread(target=sign_in, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 8)
        assert server.end(signal.SIGTERM) == 0
        for thread in threads:
            thread.join()
    assert set(answers) <= {401, 429}


def test_traces_are_sent_before_the_end(deployment: Deployment, listen: Callable[..., Listener]):
    """Those that wait for others, to be sent with them."""
    collector = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    with deployment.serve(OTLP_URL=f"http://127.0.0.1:{collector.port}", TRACE_PERCENT="100") as server:
        server.ready()
        assert server.refresh({"refresh_token": "unknown"}).status_code == 401
        assert server.end(signal.SIGTERM) == 0
    assert b"POST /auth/refresh" in b"".join(collector.requests)


def test_a_port_that_is_taken(deployment: Deployment):
    with socket.create_server(("127.0.0.1", int(deployment.variables["PORT"]))):
        said = deployment.serve_refused()
    port = deployment.variables["PORT"]
    assert said == f"port {port} of 127.0.0.1 is taken by another program: stop it, or set TOKENSERVER_PORT"


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("nowhere.invalid", "TOKENSERVER_HOST: there is no address of this name"),
        ("192.0.2.1", "TOKENSERVER_HOST: 192.0.2.1: Cannot assign requested address"),
    ],
)
def test_a_host_that_is_not_here(deployment: Deployment, host: str, line: str):
    assert deployment.serve_refused("--host", host) == line


def test_options_are_checked_as_the_settings_they_stand_for(deployment: Deployment):
    said = deployment.serve_refused("--workers", "none")
    assert said == "TOKENSERVER_WORKERS: must be a whole number from 1 to 256"


def test_production_is_not_initialised_by_serving(empty: Deployment, databases: Any, redis_url: str):
    stores = {
        "ENV": "production",
        "LOG_FORMAT": "text",
        "ISSUER": "https://id.example.org",
        "ALLOW_PLAINTEXT": "1",
        "DATABASE_URL": databases.empty("postgresql"),
        "REDIS_URL": redis_url,
    }
    assert empty.serve_refused(**stores) == "the database is not initialised: run `tokenserver init`"
    assert empty.run("db", "upgrade", "--json", **stores).data["before"] is None
    said = empty.serve_refused(**stores)
    assert said.endswith("`tokenserver init` creates a new ring; one that was there is restored from a backup")
    made = empty.run("init", "--json", **stores).data
    assert made["admin"]["email"] == "admin@localhost"
    assert empty.run("init", "--json", **stores).data["admin"] is None
    with empty.serve(**stores) as server:
        server.ready()
        assert "stores and keys are there" in server.out
        assert "Ready at http://127.0.0.1:" in server.out
        assert "as https://id.example.org\n" in server.out
        assert server.login("admin", made["admin"]["password"])
        assert server.process.poll() is None
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_a_password_from_the_settings_is_not_shown(empty: Deployment):
    done = empty.run("init", ADMIN_PASSWORD=ADMIN_PASSWORD)
    assert done.code == 0
    assert "First admin: admin@localhost, with the password of TOKENSERVER_ADMIN_PASSWORD" in done.out
    assert ADMIN_PASSWORD not in done.out


def test_no_process_shows_the_password_of_the_first_admin(empty: Deployment):
    """To who can read /proc/PID/environ: it is none of the workers' business."""
    with empty.serve(ADMIN_PASSWORD=ADMIN_PASSWORD) as server:
        server.ready()
        assert server.login()
        shown = [Path(f"/proc/{pid}/environ").read_bytes() for pid in [server.process.pid, *server.family()]]
        assert len(shown) == 4
        assert ADMIN_PASSWORD.encode() not in b"".join(shown)


def test_workers_that_can_not_start_end_the_server(deployment: Deployment):
    (deployment.folder / "sitecustomize.py").write_text(
        "import os\nos.register_at_fork(after_in_child=lambda: os.environ.update(TOKENSERVER_NONSENSE='1'))\n"
    )
    with deployment.serve(path=str(deployment.folder), WORKERS="1") as server:
        wait_until(lambda: server.process.poll() is not None)
        assert server.process.wait(PATIENCE) == 1
        assert "Ready" not in server.out
    lines = server.log.read_text().splitlines()
    assert "Traceback" not in server.log.read_text()
    assert "tokenserver: TOKENSERVER_NONSENSE: no such setting; docs/configuration.md lists them all" in lines
    assert lines[-1] == "tokenserver: the workers end as soon as they start: what they said stands above"


def test_init_says_what_it_did_and_may_be_repeated(empty: Deployment):
    first = empty.run("init", "--json").data
    assert [step["what"].partition(":")[0] for step in first["steps"]] == [
        "embedded Redis",
        "program loaded",
        "database schema",
        "signing key",
        "built-in roles and clients created",
        "first admin",
        "audit checkpoint",
    ]
    assert all(step["seconds"] >= 0 for step in first["steps"])
    assert len(first["admin"]["password"]) >= 20
    second = empty.run("init")
    assert "database schema is current" in second.out
    assert "Password" not in second.out
    assert first["admin"]["password"] not in second.out


def test_a_password_that_is_too_weak_names_the_setting(empty: Deployment):
    done = empty.run("init", ADMIN_PASSWORD="short")
    assert done.code == 1
    assert done.line.startswith("TOKENSERVER_ADMIN_EMAIL, TOKENSERVER_ADMIN_PASSWORD: password: Use at least")
