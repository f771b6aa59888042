"""`tokenserver client` follows the same rules as `/clients`, and shows the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.answers import granted
from tests.clients.conftest import Caller
from tokenserver.cli import program
from tokenserver.cli.command import run
from tokenserver.config import Settings
from tokenserver.rooms import Rooms

JWKS = {
    "keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "2025-a"}]
}

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Code, stdout and stderr of a command, on the stores of this test."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(program, ["client", *arguments])
        return code, *capsys.readouterr()

    return command


def test_what_is_registered_here_is_seen_there(command: Command, admin: Caller):
    arguments = ["--name", "A page", "--grant", "password", "--auth-method", "none", "--first-party"]
    uris = ["https://app.example/cb", "com.example.app:/cb"]
    for uri in uris:
        arguments += ["--redirect-uri", uri]
    code, out, err = command("create", "--id", "page", *arguments, "--json")
    assert (code, err) == (0, "")
    seen = granted(admin.get("page"))
    assert (seen["redirect_uris"], seen["first_party"]) == (uris, True)
    printed = json.loads(out)
    assert printed.keys() == seen.keys()
    assert {n: printed[n] for n in printed if not n.endswith("_at")} == {
        n: seen[n] for n in seen if not n.endswith("_at")
    }


def test_keys_are_shown(command: Command, rooms: Rooms):
    rooms.clients.create(client_id="job", client_name="J", grant_types=["client_credentials"], jwks=JWKS)
    shown = json.loads(command("show", "job", "--json")[1])
    assert shown["jwks"] == JWKS
    code, out, err = command("show", "job")
    assert (code, err) == (0, "")
    assert ["jwks", "2025-a"] in [line.split() for line in out.splitlines()]
    assert ["jwks", "-"] in [line.split() for line in command("show", "first-party")[1].splitlines()]


def test_the_same_is_refused(command: Command):
    wrong: dict[str, tuple[str, ...]] = {
        "redirect_uris.0: https, but": ("--redirect-uri", "http://app.example/"),
        "redirect_uris.0: An absolute URI": ("--redirect-uri", "javascript:alert(1)"),
        "redirect_uris: Each once": ("--redirect-uri", "https://a.example", "--redirect-uri", "https://a.example"),
        "client_name: One line": ("--name", "\x1b[2J"),
        "audience: Identifiers": ("--audience", "a b"),
    }
    for said, arguments in wrong.items():
        code, out, err = command("create", "--name", "X", "--grant", "password", *arguments)
        assert (code, out) == (1, "")
        assert err.startswith(f"tokenserver: {said}")
        assert err.count("\n") == 1


def test_a_new_secret(command: Command, rooms: Rooms, api: Any):
    _, old = rooms.clients.create(client_id="job", client_name="J", grant_types=["client_credentials"])
    secret = json.loads(command("rotate-secret", "job", "--json")[1])["client_secret"]
    assert api.token(("job", old), grant_type="client_credentials").status_code == 401
    granted(api.token(("job", secret), grant_type="client_credentials"))
    code, out, err = command("rotate-secret", "first-party")
    assert (code, out, err) == (1, "", "tokenserver: A public client has no secret.\n")
