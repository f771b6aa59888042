"""`tokenserver audit`: what operators see of the log, prove of it, take elsewhere and delete."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.cli.conftest import COMMAND, PATIENCE, Deployment, wait_until
from tokenserver.audit.chain import NAMES, append
from tokenserver.config import Settings
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id


@contextmanager
def rooms_of(deployment: Deployment) -> Iterator[Rooms]:
    settings = Settings(
        data_dir=deployment.folder / "var", keys_dir=deployment.folder / "keys", signing_alg="EdDSA"
    )
    rooms = Rooms.furnish(Flask("tokenserver"), settings)
    yield rooms
    rooms.database.engine.dispose()
    rooms.store.close()


def happen(deployment: Deployment, *, days: float = 0, **values: Any) -> None:
    """An event of that many days ago."""
    row = dict.fromkeys(NAMES) | {"event": "login:failed", "outcome": "denied", "details": {}}
    row |= {"id": new_id(), "at": datetime.now(UTC) - timedelta(days=days)} | values
    with rooms_of(deployment) as rooms:
        rooms.database.write(lambda tx: append(tx, row))


@pytest.fixture
def exported(deployment: Deployment) -> Path:
    """An export of the deployment, and beside it `jwks.json`."""
    for actor in ("ann", "bob", "eve"):
        happen(deployment, actor=actor)
    assert deployment.run("audit", "export", "--output", "log.jsonl").code == 0
    with rooms_of(deployment) as rooms:
        (deployment.folder / "jwks.json").write_bytes(rooms.keys.jwks_bytes)
    return deployment.folder / "log.jsonl"


# verify


def test_the_live_log(deployment: Deployment, exported: Path) -> None:
    del exported
    done = deployment.run("audit", "verify")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("nothing was changed, removed, inserted, reordered or cut off\n")
    report = deployment.run("audit", "verify", "--json").data
    assert report["ok"] is True
    assert (report["events"], report["unsealed"], report["found"]) == (len(events(deployment)), 0, 0)
    happen(deployment)
    assert deployment.run("audit", "verify", "--json").data["unsealed"] == 1
    assert "1 event since the last checkpoint" in deployment.run("audit", "verify").out


def test_findings_of_the_live_log(deployment: Deployment, exported: Path) -> None:
    del exported
    deployment.sql("UPDATE audit_events SET outcome = 'success' WHERE actor = 'bob'")
    deployment.sql("DELETE FROM audit_events WHERE actor = 'eve'")
    done = deployment.run("audit", "verify")
    assert done.code == 1
    assert done.line == "the log does not verify: 2 findings"
    lines = done.out.splitlines()
    assert sorted(line.split(":")[0] for line in lines[:2]) == ["chain_missing", "event_changed"]
    done = deployment.run("audit", "verify", "--json")
    assert (done.code, done.line) == (1, "the log does not verify: 2 findings")
    report = json.loads(done.out)
    assert (report["ok"], report["found"]) == (False, 2)
    assert {each["code"] for each in report["findings"]} == {"chain_missing", "event_changed"}


def elsewhere(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A process of its own, without any variable, in an empty folder."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [COMMAND, "audit", "verify", *arguments],
        env={"PATH": os.environ["PATH"]},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_an_export_where_there_is_nothing_else(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    jwks = exported.with_name("jwks.json")
    arguments = ("--export", str(exported), "--jwks", str(jwks))
    done = elsewhere(*arguments, "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["ok"], report["unsealed"]) == (True, 0)
    exported.write_text(exported.read_text().replace('"actor":"bob"', '"actor":"eve"'))
    done = elsewhere(*arguments, folder=folder)
    assert done.returncode == 1
    assert done.stdout.startswith("event_changed: chain ")
    assert done.stderr == "tokenserver: the log does not verify: 1 finding\n"
    assert list(folder.iterdir()) == []


def test_keys_from_a_url(deployment: Deployment, exported: Path) -> None:
    body = exported.with_name("jwks.json").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/jwks.json" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        arguments = ("audit", "verify", "--export", str(exported), "--jwks")
        assert deployment.run(*arguments, f"{url}/jwks.json", "--json").data["ok"]
        assert deployment.refused(*arguments, f"{url}/elsewhere") == "--jwks: answered 404"
        server.shutdown()
    assert deployment.refused(*arguments, f"{url}/jwks.json").startswith("--jwks: ")
    line = "--jwks: must be https; http is for loopback hosts alone"
    assert deployment.refused(*arguments, "http://id.example/jwks.json") == line
    assert deployment.refused(*arguments, "file:///etc/passwd").startswith("--jwks: ")


def test_what_verify_refuses(deployment: Deployment, exported: Path) -> None:
    log, jwks = str(exported), str(exported.with_name("jwks.json"))
    together = "Give --export and --jwks together, or neither."
    assert deployment.refused("audit", "verify", "--export", log).startswith(together)
    assert deployment.refused("audit", "verify", "--jwks", jwks).startswith(together)
    for text in ("", "{", "[]", '{"keys": 1}', "{}"):
        exported.with_name("bad.json").write_text(text)
        assert deployment.refused("audit", "verify", "--export", log, "--jwks", "bad.json").startswith("--jwks: ")
    line = deployment.refused("audit", "verify", "--export", log, "--jwks", "nowhere.json")
    assert line == "--jwks: No such file or directory"
    line = deployment.refused("audit", "verify", "--export", jwks, "--jwks", jwks)
    assert line == "the file: is not an export of the audit log"
    assert deployment.run("audit", "verify", "--export", "nowhere", "--jwks", jwks).code == 2


def test_a_file_does_not_steer_the_terminal(deployment: Deployment, exported: Path) -> None:
    lines = exported.read_text().splitlines(keepends=True)
    event = json.loads(lines[-2]) | {"chain": "\x1b[2J\x9b31m"}
    exported.write_text("".join([*lines[:-1], json.dumps(event) + "\n", lines[-1]]))
    done = deployment.run("audit", "verify", "--export", str(exported), "--jwks", "jwks.json")
    assert done.code == 1
    assert all(line.isprintable() for line in done.out.splitlines())


# export


def test_an_export_to_a_file(deployment: Deployment, exported: Path) -> None:
    assert exported.stat().st_mode & 0o777 == 0o600
    before = exported.read_bytes()
    assert [each.name for each in exported.parent.glob("*log*")] == ["log.jsonl"]
    exported.chmod(0o644)
    done = deployment.run("audit", "export", "--output", "log.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert exported.stat().st_mode & 0o777 == 0o600
    assert len(exported.read_bytes().splitlines()) == len(before.splitlines())


def test_an_export_to_stdout(deployment: Deployment, exported: Path) -> None:
    done = deployment.run("audit", "export")
    assert done.code == 0
    assert done.out.splitlines()[1:] == exported.read_text().splitlines()[1:]
    assert deployment.run("audit", "export", "--output", "-").out.splitlines()[1:] == done.out.splitlines()[1:]


def test_an_export_makes_a_checkpoint_unless_told_not_to(deployment: Deployment, exported: Path) -> None:
    def checkpoints() -> Any:
        return deployment.sql("SELECT count(*) FROM audit_checkpoints")[0][0]

    del exported
    before = checkpoints()
    happen(deployment)
    assert deployment.run("audit", "export", "--no-checkpoint").code == 0
    assert checkpoints() == before
    assert deployment.run("audit", "export").code == 0
    assert checkpoints() == before + 1
    assert deployment.run("audit", "verify", "--json").data["unsealed"] == 0


def test_an_export_that_fails_leaves_what_was_there(deployment: Deployment, exported: Path) -> None:
    before = exported.read_bytes()
    deployment.sql("ALTER TABLE audit_events RENAME TO elsewhere")
    deployment.refused("audit", "export", "--no-checkpoint", "--output", "log.jsonl")
    deployment.refused("audit", "export", "--no-checkpoint", "--output", "other.jsonl")
    assert exported.read_bytes() == before
    assert [each.name for each in exported.parent.glob("*.jsonl*")] == ["log.jsonl"]
    assert not list(exported.parent.glob(".*.jsonl*"))


def test_where_an_export_can_not_go(deployment: Deployment) -> None:
    line = deployment.refused("audit", "export", "--output", "nowhere/log.jsonl")
    assert line.endswith("No such file or directory")
    os.mkfifo(deployment.folder / "pipe")
    assert deployment.refused("audit", "export", "--output", "pipe").endswith("is no regular file")


# tail


def events(deployment: Deployment, *arguments: str) -> list[dict[str, Any]]:
    done = deployment.run("audit", "tail", "--json", "-n", "1000", *arguments)
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_the_newest_last(deployment: Deployment) -> None:
    for number in range(3):
        happen(deployment, actor=f"a{number}", days=-number)
    assert [each["actor"] for each in events(deployment)][-3:] == ["a0", "a1", "a2"]
    done = deployment.run("audit", "tail", "-n", "2")
    assert [line.split()[3] for line in done.out.splitlines()] == ["actor=a1", "actor=a2"]
    assert deployment.run("audit", "tail", "-n", "0").out == ""


def test_an_event_as_json(deployment: Deployment) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    values = {name: f"the {name}" for name in ("reason", "actor", "client_id", "address", "request_id", "target")}
    values |= {"method": "GET", "path": "/p"}
    happen(deployment, at=at, details={"b": [1], "a": None}, **values)
    (event,) = events(deployment, "--actor", "the actor")
    assert event.pop("id")
    assert event == values | {
        "at": "2026-01-02T03:04:05.000006Z",
        "event": "login:failed",
        "outcome": "denied",
        "details": {"b": [1], "a": None},
    }


def test_an_event_as_text(deployment: Deployment) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    happen(
        deployment, at=at, actor="ann", client_id="c1", address="203.0.113.7", path="/x\x1b[2J", details={"n": 1}
    )
    done = deployment.run("audit", "tail", "--actor", "ann")
    assert done.out == (
        "2026-01-02T03:04:05.000000Z login:failed denied actor=ann client=c1 from=203.0.113.7 "
        'path=/x\N{REPLACEMENT CHARACTER}[2J {"n": 1}\n'
    )


def test_filters(deployment: Deployment) -> None:
    happen(deployment, actor="ann", event="post:created", outcome="success")
    happen(deployment, actor="ann", days=2)
    happen(deployment, actor="bob")

    def actors(*arguments: str) -> list[str]:
        return [each["actor"] for each in events(deployment, *arguments) if each["actor"] in {"ann", "bob"}]

    assert sorted(actors()) == ["ann", "ann", "bob"]
    assert actors("--actor", "ann") == ["ann", "ann"]
    assert actors("--action", "post:created") == ["ann"]
    assert sorted(actors("--outcome", "denied")) == ["ann", "bob"]
    assert sorted(actors("--since", "1d")) == ["ann", "bob"]
    assert sorted(actors("--since", (datetime.now(UTC) - timedelta(days=3)).isoformat())) == ["ann", "ann", "bob"]
    assert actors("--since", "2999-01-01") == []
    assert actors("--actor", "ann", "--outcome", "denied", "--since", "1h") == []
    for wrong in ("soon", "1w", "999999d", ""):
        assert "must be a time such as" in deployment.refused("audit", "tail", "--since", wrong)


def test_following(deployment: Deployment) -> None:
    """Each event once, also one that comes late, until Ctrl-C."""
    happen(deployment, actor="before")
    process = subprocess.Popen(
        [COMMAND, "audit", "tail", "--follow", "--json", "-n", "1"],
        env=deployment.environment | {"PYTHONUNBUFFERED": "1"},
        cwd=deployment.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None

    def read(stream: Callable[[], str] = process.stdout.readline) -> None:
        lines.extend(iter(stream, ""))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        wait_until(lambda: len(lines) == 1)
        happen(deployment, actor="after")
        wait_until(lambda: len(lines) == 2)
        happen(deployment, actor="late", days=3 / 86400)
        wait_until(lambda: len(lines) == 3)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE)
    reader.join()
    assert process.stderr is not None
    assert (code, process.stderr.read()) == (0, "")
    assert [json.loads(line)["actor"] for line in lines] == ["before", "after", "late"]
    process.stdout.close()
    process.stderr.close()


# prune


def test_pruning_by_hand(deployment: Deployment) -> None:
    for days in (40, 35, 20):
        happen(deployment, actor="ann", days=days)
    assert deployment.run("audit", "prune", "--older-than", "30").out == "2 events deleted\n"
    assert deployment.run("audit", "prune", "--older-than", "30", "--json").data == {"pruned": 0}
    assert len(events(deployment, "--actor", "ann")) == 1
    report = deployment.run("audit", "verify", "--json").data
    assert (report["ok"], report["pruned"]) == (True, 2)
    assert "2 events pruned before" in deployment.run("audit", "verify").out
    assert deployment.run("audit", "prune").code == 2
    assert deployment.run("audit", "prune", "--older-than", "0").code == 2
