"""What holds for every command: help, one line when it fails, JSON where it prints data."""

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tests.cli.conftest import Deployment
from tokenserver.cli import command, program
from tokenserver.config import Settings
from tokenserver.errors import StoreUnavailable
from tokenserver.storage import revisions


def commands(
    group: click.Group = program, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        yield (*path, name), each
        if isinstance(each, click.Group):
            yield from commands(each, (*path, name))


ALL = dict(commands())


def test_the_commands_of_the_contract_are_there():
    groups = {
        "db": {"upgrade", "current"},
        "keys": {"list", "rotate", "prune"},
        "client": {"create", "list", "show", "rotate-secret", "delete"},
        "user": {"create", "list", "grant", "revoke", "disable", "enable", "reset-password"},
        "role": {"create", "list", "set-permissions", "delete"},
        "session": {"list", "revoke"},
    }
    assert {("init",), ("serve",), ("doctor",)} <= ALL.keys()
    assert {(group, name) for group, members in groups.items() for name in members} <= ALL.keys()


@pytest.mark.parametrize("path", [(), *ALL], ids=" ".join)
def test_every_command_explains_itself(empty: Deployment, path: tuple[str, ...]):
    done = empty.run(*path, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage: tokenserver" in done.out
    options = [each for each in ALL[path].params if isinstance(each, click.Option)] if path else []
    assert [option.name for option in options if not (option.help or "").endswith(".")] == []
    assert not list(empty.folder.iterdir())


def test_help_loads_nothing_that_takes_long():
    code = "import sys, tokenserver.cli; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"flask", "sqlalchemy", "redis", "cryptography", "httptools", "marshmallow", "alembic", "argon2"}
    assert heavy & set(shown.stdout.split()) == set()


@pytest.mark.parametrize("path", [(), ("db",), ("user",)], ids=" ".join)
def test_without_a_command_the_help_is_shown(empty: Deployment, path: tuple[str, ...]):
    done = empty.run(*path)
    assert done.code == 2
    assert "Commands:" in done.out
    assert done.line == "name a command"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nonsense",), "No such command 'nonsense'. (see `tokenserver --help`)"),
        (("user", "list", "--nonsense"), "No such option '--nonsense'. (see `tokenserver user list --help`)"),
        (("user", "create"), "Missing option '--username'. (see `tokenserver user create --help`)"),
        (("user", "grant", "admin", "nobody"), "roles: There is no such role."),
        (("user", "grant", "nobody", "admin"), "There is no such user."),
        (("user", "disable", "7b0f6a52-9d5b-4a3e-8f0a-0d7f5f3b2c1d"), "There is no such user."),
        (("user", "revoke", "admin", "user"), "admin does not hold this role."),
        (("client", "show", "nobody"), "There is no such client."),
        (("client", "delete", "first-party"), "The built-in client can't be deleted."),
        (("client", "rotate-secret", "first-party"), "A public client has no secret."),
        (("session", "revoke"), "Give either the ID of a session, --user or --all."),
        (("session", "revoke", "7b0f6a52-9d5b-4a3e-8f0a-0d7f5f3b2c1d"), "There is no such live session."),
        (("keys", "rotate"), "Verifiers may not know the next key yet."),
        (("keys", "rotate", "--alg", "PS256"), "The key ring has no key for this algorithm."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_fails_says_so_in_one_line(deployment: Deployment, arguments: tuple[str, ...], line: str):
    assert line in deployment.refused(*arguments)


def test_wrong_fields_are_joined(deployment: Deployment):
    said = deployment.refused("user", "create", "--username", "a b", "--email", "nowhere", "--password", "short")
    assert [part.partition(":")[0] for part in said.split("; ")] == ["username", "email", "password"]


DATA = (
    ("init",),
    ("doctor",),
    ("db", "upgrade"),
    ("db", "current"),
    ("keys", "list", "--secrets"),
    ("keys", "prune"),
    ("client", "list"),
    ("client", "show", "first-party"),
    ("user", "list"),
    ("role", "list"),
    ("session", "list"),
    ("session", "revoke", "--user", "admin"),
    ("session", "revoke", "--all"),
)


@pytest.mark.parametrize("arguments", DATA, ids=" ".join)
def test_data_is_printed_as_text_and_as_json(deployment: Deployment, arguments: tuple[str, ...]):
    text = deployment.run(*arguments)
    assert (text.code, text.err) == (0, "")
    assert text.out.strip()
    assert isinstance(deployment.run(*arguments, "--json").data, list | dict)


@pytest.mark.parametrize("arguments", [("user", "list"), ("keys", "list"), ("client", "create", "--name", "x")])
def test_before_the_first_start_commands_say_what_to_do(empty: Deployment, arguments: tuple[str, ...]):
    more = ("--grant", "client_credentials") if "create" in arguments else ()
    assert empty.refused(*arguments, *more) == "the database is not initialised: run `tokenserver init`"
    assert not list(empty.folder.iterdir())


def test_with_an_older_schema_commands_say_what_to_do(deployment: Deployment, monkeypatch: pytest.MonkeyPatch):
    known, is_at = revisions.history()
    monkeypatch.setattr("tokenserver.storage.revisions.history", lambda: (known | {"9999"}, "9999"))
    said = deployment.refused("user", "list")
    assert said == f"the database schema is at {is_at} and this version needs 9999: run `tokenserver init`"


def test_a_later_schema_may_be_used_but_not_changed(deployment: Deployment):
    deployment.sql("UPDATE alembic_version SET version_num = '9999'")
    assert deployment.run("user", "list").code == 0
    for arguments in (("db", "upgrade"), ("init",)):
        assert "(9999) was made by a later version" in deployment.run(*arguments).line


@pytest.mark.parametrize("arguments", [("init",), ("db", "current"), ("user", "list")], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PROT", "8000", "TOKENSERVER_PROT: no such setting; docs/configuration.md lists them all"),
        ("PORT", "80000", "TOKENSERVER_PORT: must be a whole number from 1 to 65535"),
        ("REDIS_URL", "redis://host:port", "TOKENSERVER_REDIS_URL: has a port that is not a number up to 65535"),
        (
            "ENV",
            "production",
            "TOKENSERVER_DATABASE_URL must name a PostgreSQL or CockroachDB server in production",
        ),
    ],
)
def test_settings_that_can_not_be_used_are_named(
    empty: Deployment, arguments: tuple[str, ...], name: str, value: str, line: str
):
    assert empty.refused(*arguments, **{name: value}).startswith(line)


def test_a_server_does_not_start_with_them(empty: Deployment):
    assert empty.serve_refused(PROT="8000").startswith("TOKENSERVER_PROT: no such setting")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "DATABASE_URL",
            "postgresql://u:secret@127.0.0.1:1/x",
            "the database is not available (connection to server",
        ),
        ("DATABASE_URL", "postgresql://u@127.0.0.1/x?nonsense=1", "TOKENSERVER_DATABASE_URL: invalid dsn: "),
        ("REDIS_URL", "redis://:secret@127.0.0.1:1", "Redis is not available (ConnectionError: Connection refused"),
    ],
)
def test_a_store_that_is_away_is_named(deployment: Deployment, name: str, value: str, line: str):
    said = deployment.refused("user", "create", "--username", "ann", "--email", "ann@example.org", **{name: value})
    assert said.startswith(line)
    assert f"TOKENSERVER_{name}" in said
    assert "secret" not in said


def test_an_unexpected_error_is_one_line_and_in_debug_a_traceback_too(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    def surprise(_rooms: object) -> None:
        raise RuntimeError("one\ntwo")

    monkeypatch.setattr(command, "require_schema", surprise)
    said = deployment.refused("user", "list")
    assert said == "unexpected RuntimeError: one two (TOKENSERVER_LOG_LEVEL=debug shows the traceback)"
    debug = deployment.run("user", "list", LOG_LEVEL="debug")
    assert debug.err.startswith("Traceback")
    assert debug.err.splitlines()[-1] == f"tokenserver: {said}"


def test_an_outage_without_a_cause_tells_what_is_known():
    error = StoreUnavailable("redis", "LOADING")
    assert command.sentence(error) == "Redis is not available (LOADING): check TOKENSERVER_REDIS_URL"


def test_what_strangers_named_does_not_steer_the_terminal(deployment: Deployment):
    name = "\x1b[2Jgone\u202e"
    # As an older version would have taken it.
    deployment.run("client", "create", "--id", "odd", "--name", "odd", "--grant", "client_credentials")
    deployment.sql(f"UPDATE clients SET client_name = '{name}' WHERE client_id = 'odd'")
    assert "\ufffd[2Jgone\ufffd" in deployment.run("client", "list").out
    listed = deployment.run("client", "list", "--json").data
    assert name in [each["client_name"] for each in listed]


def test_settings_survive_the_way_to_another_process():
    settings = Settings(port=1234, rate_limits=False, refresh_grace=0, host="::1", admin_email="a@b")
    assert Settings.load(settings.environment()) == settings
    assert all(isinstance(value, str) for value in settings.environment().values())
    assert json.dumps(settings.environment())
