"""`tokenserver doctor` finds what is wrong, says what to do, and never hangs."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tests.cli.conftest import Deployment
from tests.redis_servers import Single
from tests.smtp_server import SmtpServer, smtp
from tokenserver.cli import checks, doctor, store_checks
from tokenserver.cli.finding import Check
from tokenserver.config import Settings
from tokenserver.storage import clock, redis_rules, schema
from tokenserver.tokens import multi_buffer

__all__ = ["smtp"]


class Finding(NamedTuple):
    status: str
    detail: str
    remedy: str


def examine(deployment: Deployment, code: int = 0, **variables: str) -> dict[str, Finding]:
    """By name; the exit code follows from the faults, and whatever isn't well says what to do."""
    done = deployment.run("doctor", "--json", **variables)
    findings = json.loads(done.out)
    faults = [each for each in findings if each["status"] == "fault"]
    assert done.code == code == bool(faults), done.out
    assert (done.line if faults else done.err) == (
        f"{len(faults)} fault{'s' * (len(faults) > 1)} found" if faults else ""
    )
    assert all(each["detail"] and bool(each["remedy"]) == (each["status"] != "ok") for each in findings), findings
    return {each["name"]: Finding(each["status"], each["detail"], each["remedy"]) for each in findings}


def faulty(deployment: Deployment, **variables: str) -> dict[str, Finding]:
    findings = examine(deployment, 1, **variables)
    return {name: finding for name, finding in findings.items() if finding.status == "fault"}


def warned(deployment: Deployment, **variables: str) -> dict[str, Finding]:
    findings = examine(deployment, 0, **variables)
    return {name: finding for name, finding in findings.items() if finding.status == "warning"}


def test_all_is_well_without_a_server(deployment: Deployment):
    findings = examine(deployment)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["server"].detail == "is not running"
    subjects = {"configuration", "proxies", "data folder", "keys", "database", "schema", "initialised", "admin"}
    subjects |= {"redis version", "redis eviction", "redis permissions", "redis persistence", "redis epoch"}
    subjects |= {"clock of redis", "mail", "server"}
    assert findings.keys() == subjects


def test_it_says_how_many_signatures_are_made_at_a_time(deployment: Deployment):
    signs, fault = multi_buffer.found()
    how = "up to 8 at a time" if signs else f"one at a time: {fault}" if fault else ""
    assert examine(deployment)["keys"].detail.partition("; signatures ")[2] == how


def test_the_text_names_each_check_and_what_to_do(deployment: Deployment):
    (deployment.folder / "var").chmod(0o755)
    done = deployment.run("doctor")
    assert done.code == 1
    lines = done.out.splitlines()
    assert "ok      configuration: development, issuer http://127.0.0.1:" in lines[0]
    at = lines.index(f"FAULT   data folder: {deployment.folder}/var has mode 0755")
    assert lines[at + 1] == f"          to do: chmod 700 {deployment.folder}/var"


def test_before_the_first_start(empty: Deployment):
    faults = faulty(empty)
    assert faults.keys() == {"data folder", "keys", "schema"}
    assert all("tokenserver init" in finding.remedy for finding in faults.values())
    assert not list(empty.folder.iterdir())


# Configuration


def test_an_unknown_variable(deployment: Deployment):
    assert faulty(deployment, PROT="1") == {
        "configuration": (
            "fault",
            "TOKENSERVER_PROT: no such setting; docs/configuration.md lists them all",
            "correct it in the environment or in .env; docs/configuration.md explains each setting",
        )
    }


def test_the_rules_of_production(deployment: Deployment):
    finding = faulty(deployment, ENV="production", RATE_LIMITS="off")["production"]
    assert finding.detail == "TOKENSERVER_RATE_LIMITS must stay on in production"


@pytest.mark.parametrize(
    ("variables", "name", "detail"),
    [
        (
            {"ISSUER": "https://id.example.org"},
            "proxies",
            "so a proxy must stand before this server, but none is trusted",
        ),
        (
            {"ISSUER": "http://id.example.org", "TRUSTED_PROXIES": "1"},
            "proxies",
            "proxies are trusted, but the issuer",
        ),
        ({"ISSUER": "http://127.0.0.1:7999"}, "proxies", "clients are told http://127.0.0.1:7999, but the server"),
        ({"ISSUER": "http://id.example.org:{PORT}"}, "proxies", "clients are told http://id.example.org:"),
        ({"RATE_LIMITS": "off"}, "rate limits", "TOKENSERVER_RATE_LIMITS is off"),
    ],
)
def test_settings_that_do_not_fit_together(
    deployment: Deployment, variables: dict[str, str], name: str, detail: str
):
    given = {key: value.format(**deployment.variables) for key, value in variables.items()}
    found = warned(deployment, **given)
    assert found.keys() == {name}
    assert detail in found[name].detail


@pytest.mark.parametrize(
    "variables",
    [
        {"ISSUER": "https://id.example.org", "TRUSTED_PROXIES": "1"},
        {"ISSUER": "http://localhost:{PORT}"},
        {"HOST": "0.0.0.0", "ISSUER": "http://id.example.org:{PORT}"},
    ],
)
def test_settings_that_do(deployment: Deployment, variables: dict[str, str]):
    given = {key: value.format(**deployment.variables) for key, value in variables.items()}
    assert warned(deployment, **given) == {}


def test_mail_server(deployment: Deployment, smtp: Callable[..., SmtpServer]):
    server = smtp(password="right")
    url = f"smtp://mailer:{{}}@127.0.0.1:{server.port}?starttls=off"
    assert "takes mail from no-reply@" in examine(deployment, SMTP_URL=url.format("right"))["mail"].detail
    found = faulty(deployment, SMTP_URL=url.format("wrong-one"))
    assert found["mail"].detail == "the mail server doesn't take the user and password"
    assert "wrong-one" not in str(found)
    found = faulty(deployment, SMTP_URL=url.format("right").partition("?")[0])
    assert "offers no STARTTLS" in found["mail"].detail
    assert server.received == []


def test_no_mail_in_production():
    [finding] = checks.mail(Settings(env="production", issuer="https://id.example"))
    assert (finding.status, finding.remedy) == ("warning", "set TOKENSERVER_SMTP_URL")
    finding = next(checks.mail(Settings(smtp_url="smtp://mail.example:25?starttls=off")))
    assert finding.detail.startswith("TOKENSERVER_SMTP_URL goes over the network without TLS")


@pytest.mark.parametrize(
    ("name", "url", "detail"),
    [
        ("DATABASE_URL", "postgresql://u@10.0.0.1/x", "TOKENSERVER_DATABASE_URL goes over the network without TLS"),
        ("DATABASE_URL", "postgresql://u@10.0.0.1/x?sslmode=require", "sslmode=require encrypts, but any server"),
        ("REDIS_URL", "redis://10.0.0.1", "TOKENSERVER_REDIS_URL goes over the network without TLS"),
    ],
)
def test_stores_without_tls(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, name: str, url: str, detail: str
):
    monkeypatch.setattr(store_checks, "database", lambda _settings: iter(()))
    monkeypatch.setattr(store_checks, "redis", lambda _settings: iter(()))
    assert warned(deployment, **{name: url})["tls"].detail.startswith(detail)


# Folders and keys


def test_files_that_others_can_read(deployment: Deployment):
    key = next((deployment.folder / "keys").glob("*.pem"))
    key.chmod(0o640)
    finding = faulty(deployment)["keys"]
    assert finding == ("fault", f"{key} has mode 0640", f"chmod 600 {key}")


def test_a_key_that_is_missing(deployment: Deployment):
    key = next((deployment.folder / "keys").glob("*.pem"))
    key.unlink()
    finding = faulty(deployment)["keys"]
    assert finding.detail == f"{key}: No such file or directory"
    assert finding.remedy.startswith("restore it from a backup")


def test_a_ring_without_a_key_for_the_algorithm(deployment: Deployment):
    finding = faulty(deployment, SIGNING_ALG="PS256")["keys"]
    assert finding == ("fault", "the key ring has no active key for PS256", "`tokenserver init` creates it")


def test_a_key_that_is_old(deployment: Deployment):
    deployment.ripen_keys()
    assert warned(deployment, KEY_ROTATION_INTERVAL="1d")["key age"].remedy.startswith(
        "run `tokenserver keys rotate`"
    )
    assert warned(deployment) == {}


def test_a_full_disk(deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=5 * 1024 * 1024))
    assert warned(deployment)["disk space"].detail.startswith("5 MB are left on the disk of ")


# SQL


def test_a_pending_schema(deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    is_at = schema.head()
    monkeypatch.setattr("tokenserver.storage.schema.head", lambda: "9999")
    assert faulty(deployment) == {
        "schema": ("fault", f"revision {is_at}, and this version needs 9999", "run `tokenserver db upgrade`")
    }


def test_a_later_schema(deployment: Deployment):
    deployment.sql("UPDATE alembic_version SET version_num = '9999'")
    assert warned(deployment)["schema"].detail == "revision 9999 was made by a later version than this one"


@pytest.mark.parametrize(
    ("statement", "name", "detail"),
    [
        ("DELETE FROM server_state", "initialised", "the row of server_state is missing"),
        (
            "DELETE FROM roles WHERE name IN ('user', 'moderator')",
            "initialised",
            "the roles moderator, user are missing",
        ),
        ("DELETE FROM role_assignments", "admin", "nobody can manage roles"),
        (
            "UPDATE users SET status = 'disabled'",
            "admin",
            "who can manage roles is disabled, or lacks roles:assign or roles:write",
        ),
    ],
)
def test_rows_that_are_missing(deployment: Deployment, statement: str, name: str, detail: str):
    deployment.sql(statement)
    finding = faulty(deployment)[name]
    assert finding.detail == detail
    assert "tokenserver" in finding.remedy


def test_a_database_that_is_away(deployment: Deployment):
    finding = faulty(deployment, DATABASE_URL="postgresql://u:secret@127.0.0.1:1/x")["database"]
    assert finding.detail.startswith('the database is not available (connection to server at "127.0.0.1"')
    assert "secret" not in finding.detail
    assert finding.remedy == "see that the database is up and TOKENSERVER_DATABASE_URL is right"


def test_postgresql(deployment: Deployment, databases: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch):
    url = databases.fresh("postgresql")
    stores = {"DATABASE_URL": url, "REDIS_URL": redis_url}
    assert examine(deployment, **stores)["clock of database"].status == "ok"
    monkeypatch.setattr(clock, "sql_time", lambda _database: time.time() + 3)
    assert warned(deployment, **stores)["clock of database"].detail.startswith("this machine is ")


# Redis


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_forgets(deployment: Deployment, own_redis: Any, policy: str):
    own_redis.stop()
    own_redis.start("--maxmemory-policy", policy, "--appendonly", "no")
    url = own_redis.url()
    findings = examine(deployment, 1, REDIS_URL=url)
    assert findings["redis eviction"].detail.startswith(f"maxmemory-policy of Redis is {policy}, ")
    assert findings["redis persistence"].status == "warning"
    for line in (deployment.run("init", REDIS_URL=url).line, deployment.serve_refused(REDIS_URL=url)):
        assert line.startswith(f"maxmemory-policy of Redis is {policy}, ")


def test_a_redis_that_is_too_old(deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_rules, "MIN_VERSION", (99, 0))
    finding = faulty(deployment)["redis version"]
    assert finding.detail.endswith("older than 99.0")
    assert finding.detail in deployment.run("init").line


def test_a_user_of_redis_who_may_not_do_enough(deployment: Deployment):
    """As after an upgrade, with the ACL file of before."""
    with Single(acl=True) as redis:
        for denied in ("pexpireat", "xtrim", "eval"):
            redis.admin().execute_command("ACL SETUSER", "tokenserver", f"-{denied}")
        url = redis.url()
        finding = faulty(deployment, REDIS_URL=url)["redis permissions"]
        assert finding.detail == "the user of Redis may not use EVAL, PEXPIREAT, XTRIM"
        for line in (deployment.run("init", REDIS_URL=url).line, deployment.serve_refused(REDIS_URL=url)):
            assert line.startswith(finding.detail)
        assert redis.admin().dbsize() == 0


def test_a_redis_that_is_away(deployment: Deployment):
    finding = faulty(deployment, REDIS_URL="redis://127.0.0.1:1")["redis"]
    assert finding.detail.startswith("Redis is not available (ConnectionError: Connection refused")
    assert finding.remedy == "see that Redis is up and TOKENSERVER_REDIS_URL is right"


def test_a_redis_of_another_epoch(deployment: Deployment):
    deployment.sql("UPDATE server_state SET epoch = 'another'")
    assert "emptied or replaced" in warned(deployment)["redis epoch"].detail
    assert deployment.run("user", "create", "--username", "ann", "--email", "ann@example.org").code == 0
    assert warned(deployment) == {}


def test_a_damaged_append_only_file(deployment: Deployment):
    file = deployment.folder / "var" / "appendonly.aof"
    if not file.exists():
        file = next((deployment.folder / "var").glob("appendonlydir/*.incr.aof"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"nonsense" + content[len(content) // 2 :])
    finding = faulty(deployment)["redis"]
    assert finding.detail == "the append-only file of Redis is damaged"
    assert "cut the damage off with" in finding.remedy


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(0.5, "ok"), (-0.5, "ok"), (3, "warning"), (-3, "warning"), (60, "fault"), (-60, "fault")],
)
def test_clocks(seconds: float, status: str):
    finding = store_checks._clock("redis", lambda: time.time() + seconds)
    assert (finding.name, finding.status) == ("clock of redis", status)


# The server


def listening(answer: bytes | None) -> tuple[str, Callable[[], None]]:
    """The port of a program that answers like this, or not at all; and what ends it."""
    socket_ = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                connection, _ = socket_.accept()
            except OSError:
                return
            with connection:
                connection.recv(1000)
                if answer is not None:
                    connection.sendall(answer)

    thread = threading.Thread(target=work, daemon=True)
    if answer is not None:
        thread.start()

    def end() -> None:
        socket_.shutdown(socket.SHUT_RDWR)
        socket_.close()
        if answer is not None:
            thread.join()

    return str(socket_.getsockname()[1]), end


@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "warning", "another program answers on port "),
        (b"HTTP/1.0 503 no\r\n\r\n" + b'{"missing": ["redis"]}', "fault", "is running, but not ready: redis"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b'{"missing": []}', "ok", "is running and ready"),
        (b"SSH-2.0-nonsense\r\n", "fault", "does not answer (BadStatusLine)"),
    ],
)
def test_what_listens_on_the_port(deployment: Deployment, answer: bytes, status: str, detail: str):
    port, end = listening(answer)
    try:
        finding = examine(deployment, int(status == "fault"), PORT=port)["server"]
    finally:
        end()
    assert finding.status == status
    assert detail in finding.detail


def test_what_never_answers_is_given_up(deployment: Deployment):
    port, end = listening(None)
    started = time.monotonic()
    try:
        faults = faulty(
            deployment,
            PORT=port,
            REDIS_URL=f"redis://127.0.0.1:{port}",
            DATABASE_URL=f"postgresql://u@127.0.0.1:{port}/x",
        )
    finally:
        end()
    assert time.monotonic() - started < 60
    assert faults.keys() == {"database", "redis", "server"}


def test_a_check_that_hangs_is_given_up(deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()

    def hang() -> Any:
        release.wait(20)
        yield from ()

    monkeypatch.setattr(doctor, "checks_of", lambda _settings: [Check("slow", hang, "wake it", 0.1)])
    assert faulty(deployment) == {"slow": ("fault", "no answer within 0.1 s", "wake it")}
    release.set()
