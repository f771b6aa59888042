"""What a command changes holds in a running server, in all its workers, from the next request on."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.cli.conftest import ADMIN_PASSWORD, Deployment, Done, Server, wait_until
from tests.totp import App, decoded

PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 30}
NEW_PASSWORD = "another horse 8 battery"


@pytest.fixture(scope="module")
def cli(server: Server) -> Deployment:
    """Commands on the stores of the running server."""
    return server.deployment


def created(cli: Deployment, username: str) -> dict[str, Any]:
    """A user, with the password that was generated."""
    arguments = ("--username", username, "--email", f"{username}@example.org", "--json")
    return dict(cli.run("user", "create", *arguments).data)


def signed_in(cli: Deployment, server: Server, username: str) -> dict[str, Any]:
    user = created(cli, username)
    tokens = server.login(username, user["password"])
    assert server.statuses(tokens) == {200}
    return tokens


def claims(tokens: dict[str, Any]) -> dict[str, Any]:
    payload = tokens["access_token"].split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "==")))


def me(server: Server, tokens: dict[str, Any]) -> Any:
    header = {"Authorization": f"Bearer {tokens['access_token']}"}
    return httpx.get(f"{server.url}/users/me", headers=header, trust_env=False, verify=False, timeout=30).json()


# users


def test_a_created_user_signs_in_with_the_password_shown_once(cli: Deployment, server: Server):
    user = created(cli, "ann")
    assert user["roles"] == ["user"]
    assert server.login("ann", user["password"])
    listed = cli.run("user", "list", "--json")
    assert user["password"] not in listed.out
    assert {each["username"]: each["roles"] for each in listed.data}["ann"] == ["user"]


def test_a_password_comes_from_stdin_or_from_the_command(cli: Deployment, server: Server):
    arguments = ("--email", "bob@example.org", "--password-stdin")
    done = cli.run("user", "create", "--username", "bob", *arguments, stdin=f"{NEW_PASSWORD}\nmore\n")
    assert done == Done(0, "bob is created\n", "")
    assert server.login("bob", NEW_PASSWORD)
    done = cli.run("user", "create", "--username", "eve", "--email", "eve@example.org", "--password", NEW_PASSWORD)
    assert NEW_PASSWORD not in done.out
    assert server.login("eve@example.org", NEW_PASSWORD)
    said = cli.refused("user", "create", "--username", "x1", *arguments, "--password", NEW_PASSWORD)
    assert said.startswith("Give the password in one way only.")
    assert cli.refused("user", "create", "--username", "x1", *arguments).startswith(
        "There is no password on stdin."
    )


def test_a_granted_role_holds_at_the_next_request(cli: Deployment, server: Server):
    tokens = signed_in(cli, server, "carol")
    user_id = me(server, tokens)["id"]
    for who, roles in (("carol", ["moderator", "user"]), ("Carol@Example.org", ["moderator", "user"])):
        done = cli.run("user", "grant", who, "moderator")
        assert done.out == "carol holds: moderator user\n"
        assert {tuple(me(server, tokens)["roles"]) for _ in range(12)} == {tuple(roles)}
    assert cli.run("user", "revoke", user_id, "moderator", "--json").data["roles"] == ["user"]
    assert {tuple(me(server, tokens)["roles"]) for _ in range(12)} == {("user",)}


def test_a_disabled_user_is_out_at_once_and_may_come_back(cli: Deployment, server: Server):
    tokens = signed_in(cli, server, "dave")
    assert cli.run("user", "disable", "dave").out == "dave is disabled\n"
    assert server.statuses(tokens) == {401}
    assert {server.refresh(tokens).status_code for _ in range(8)} == {401}
    assert cli.run("session", "list", "--user", "dave", "--json").data == []
    password = cli.run("user", "reset-password", "dave", "--json").data["password"]
    body = {"login": "dave", "password": password}
    assert server.post("/auth/login", json=body).json()["code"] == "account_disabled"
    assert cli.run("user", "enable", "dave").out == "dave is active\n"
    assert server.statuses(tokens) == {401}
    assert server.statuses(server.login("dave", password)) == {200}


def test_somebody_who_can_sign_in_must_be_able_to_manage_roles(cli: Deployment):
    line = "Nobody could manage roles any more."
    assert cli.refused("user", "disable", "admin") == line
    assert cli.refused("user", "revoke", "admin", "admin") == line
    created(cli, "deputy")
    assert cli.run("user", "grant", "deputy", "admin").code == 0
    assert cli.run("user", "disable", "deputy").code == 0
    # Somebody disabled doesn't count.
    assert cli.refused("user", "disable", "admin") == line
    assert cli.refused("user", "revoke", "admin", "admin") == line
    assert cli.run("user", "revoke", "deputy", "admin").code == 0
    assert [each["status"] for each in cli.run("user", "list", "--json").data if each["username"] == "admin"] == [
        "active"
    ]


def test_a_new_password_ends_every_session(cli: Deployment, server: Server):
    tokens = signed_in(cli, server, "frank")
    done = cli.run("user", "reset-password", "frank", "--password-stdin", stdin=NEW_PASSWORD)
    assert done.out == "frank has a new password; every session has ended\n"
    assert server.statuses(tokens) == {401}
    assert server.refresh(tokens).status_code == 401
    assert server.statuses(server.login("frank", NEW_PASSWORD)) == {200}
    assert "most common" in cli.refused("user", "reset-password", "frank", "--password-stdin", stdin="password1")
    assert cli.refused("user", "reset-password", "frank", "--password-stdin", stdin="short").startswith(
        "password: "
    )


# sessions


def test_a_revoked_session_is_over_and_others_go_on(cli: Deployment, server: Server):
    first = signed_in(cli, server, "grace")
    password = cli.run("user", "reset-password", "grace", "--json").data["password"]
    first, second, third = (server.login("grace", password) for _ in range(3))
    listed = cli.run("session", "list", "--user", "grace", "--json").data
    assert [each["id"] for each in listed] == [claims(each)["sid"] for each in (third, second, first)]
    assert {each["username"] for each in listed} == {"grace"}
    assert len(cli.run("session", "list", "--limit", "1", "--json").data) == 1

    assert cli.run("session", "revoke", listed[2]["id"]).out == "1 ended\n"
    assert server.statuses(first) == {401}
    assert server.refresh(first).status_code == 401
    assert server.statuses(second) == {200}
    assert cli.refused("session", "revoke", listed[2]["id"]) == "There is no such live session."

    assert cli.run("session", "revoke", "--user", "grace", "--json").data.keys() == {"ended"}
    assert server.statuses(second) == server.statuses(third) == {401}
    assert server.refresh(third).status_code == 401


# clients


def test_a_client_gets_a_token_until_it_is_deleted(cli: Deployment, server: Server):
    arguments = ("--name", "A job", "--grant", "client_credentials", "--scope", "posts:create users:read")
    client = cli.run("client", "create", "--id", "job", *arguments, "--scope", "users:list", "--json").data
    assert client["scope"] == "posts:create users:list users:read"

    def token(secret: str) -> httpx.Response:
        return server.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=("job", secret))

    first = token(client["client_secret"])
    assert first.status_code == 200, first.text
    assert claims(first.json())["client_id"] == "job"
    assert client["client_secret"] not in cli.run("client", "show", "job").out
    secret = cli.run("client", "rotate-secret", "job", "--json").data["client_secret"]
    assert {token(client["client_secret"]).status_code for _ in range(8)} == {401}
    assert token(secret).status_code == 200
    assert cli.refused("client", "create", "--id", "job", *arguments) == "There is a client with this id."

    assert cli.run("client", "delete", "job").out == "job is deleted\n"
    assert {token(secret).status_code for _ in range(8)} == {401}
    assert server.statuses(first.json()) == {401}


def test_a_deleted_client_takes_its_sessions_along(cli: Deployment, server: Server):
    created(cli, "heidi")
    password = cli.run("user", "reset-password", "heidi", "--json").data["password"]
    arguments = ("--name", "App", "--grant", "password", "--grant", "refresh_token", "--auth-method", "none")
    done = cli.run("client", "create", "--id", "app", *arguments, "--scope", "posts:create", "--audience", "urn:x")
    assert done.out == "client_id:     app\n"
    form = {"grant_type": "password", "username": "heidi", "password": password, "client_id": "app"}
    tokens = server.post("/oauth/token", data=form).json()
    assert claims(tokens)["aud"] in ("urn:x", ["urn:x"])
    assert [each["client_id"] for each in cli.run("session", "list", "--user", "heidi", "--json").data] == ["app"]
    assert cli.run("client", "delete", "app", "--json").data == {"client_id": "app", "deleted": True}
    assert cli.run("session", "list", "--user", "heidi", "--json").data == []
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "app"}
    assert server.post("/oauth/token", data=form).status_code == 401


# keys


def of_default(cli: Deployment) -> dict[str, str]:
    """By state, the kid of the algorithm that access tokens are signed by; RS256 is there for ID tokens, too."""
    keys = cli.run("keys", "list", "--json").data
    return {each["state"]: each["kid"] for each in keys if each["alg"] == "EdDSA"}


def test_a_rotated_key_signs_within_seconds_and_no_token_fails(cli: Deployment, server: Server):
    tokens = signed_in(cli, server, "ivan")
    before = of_default(cli)
    rotation = cli.run("keys", "rotate", "--alg", "EdDSA", "--json").data
    assert [each["kid"] for each in rotation["activated"]] == [before["next"]]
    assert rotation["replaced"] == [before["active"]]
    fresh = of_default(cli)["next"]
    wait_until(lambda: all(fresh in server.kids() for _ in range(8)), 5)
    assert before["active"] in server.kids()
    assert server.statuses(tokens) == {200}
    renewed = server.refresh(tokens).json()
    header = json.loads(base64.urlsafe_b64decode(renewed["access_token"].split(".")[0] + "=="))
    assert header["kid"] == before["next"]
    assert server.statuses(renewed) == {200}
    assert cli.run("keys", "prune").out == "nothing to prune\n"


def test_after_an_emergency_nothing_issued_before_is_accepted(cli: Deployment, server: Server):
    judy = created(cli, "judy")
    tokens = server.login("judy", judy["password"])
    header = {"Authorization": f"Bearer {tokens['access_token']}"}
    factors = f"{server.url}/users/me/second-factors/totp"
    authenticator = App(decoded(httpx.post(factors, json={}, headers=header, **PLAIN).json()["secret"]))
    sent = {"otp": authenticator.code()}
    assert httpx.post(f"{factors}/confirm", json=sent, headers=header, **PLAIN).status_code == 200
    before = {each["kid"] for each in cli.run("keys", "list", "--secrets", "--json").data}
    done = cli.run("keys", "rotate", "--emergency")
    assert done.out.endswith("every token issued so far is refused; everybody signs in again\n")
    assert server.statuses(tokens) == {401}
    assert {server.refresh(tokens).status_code for _ in range(8)} == {401}
    after = {each["kid"] for each in cli.run("keys", "list", "--secrets", "--json").data}
    assert not before & after
    wait_until(lambda: all(set(server.kids()) <= after for _ in range(8)), 5)
    assert server.refresh(tokens).status_code == 401
    assert server.statuses(server.login()) == {200}
    events = cli.sql("SELECT actor, reason FROM audit_events WHERE event = 'signing_key:rotated' ORDER BY at")
    assert events[-2:] == [("cli", "emergency")] * 2  # of both algorithms in the ring
    # What the log says of the sessions holds after the cutoff is forgotten, too.
    ends = cli.sql("SELECT end_reason, ended_at IS NULL FROM sessions ORDER BY created_at")
    assert ends[-1] == (None, 1)
    assert ("emergency", 0) in ends[:-1]
    assert all(not live for _, live in ends[:-1])
    # What was sealed under a secret that is gone was sealed anew.
    sent = {"login": "judy", "password": judy["password"], "otp": authenticator.code()}
    assert httpx.post(f"{server.url}/auth/login", json=sent, **PLAIN).status_code == 200


# the rest


def test_roles_say_what_they_permit(cli: Deployment):
    roles = {each["name"]: each for each in cli.run("role", "list", "--json").data}
    assert roles["admin"]["user_count"] == 1
    assert roles["user"]["permissions"] == ["posts:create"]
    assert roles["user"]["builtin"] is True


def test_doctor_sees_that_it_runs(cli: Deployment):
    done = cli.run("doctor")
    assert done.code == 0, done.out
    assert "ok      server: is running and ready\n" in done.out


def test_every_change_is_recorded_as_made_by_the_command_line(cli: Deployment):
    created(cli, "kim")
    [row] = cli.sql("SELECT actor, details FROM audit_events WHERE event = 'user:created' ORDER BY at DESC LIMIT 1")
    assert row[0] == "cli"
    assert json.loads(row[1]) == {"username": "kim"}
    assert ADMIN_PASSWORD not in str(cli.sql("SELECT * FROM audit_events"))


# tokens


def test_tokens_that_are_asked_for_at_once_are_each_signed(cli: Deployment, server: Server, tmp_path: Path):
    """Eight signatures at a time, where the processor can."""
    (metadata := tmp_path / "metadata.json").write_text('{"access_token_signed_response_alg": "RS256"}')
    arguments = ("--name", "many", "--grant", "client_credentials", "--metadata", str(metadata), "--json")
    client = cli.run("client", "create", *arguments).data
    with httpx.Client(**PLAIN) as http, ThreadPoolExecutor(24) as pool:
        secret = (client["client_id"], client["client_secret"])
        form = {"grant_type": "client_credentials"}
        answers = pool.map(lambda _: http.post(f"{server.url}/oauth/token", data=form, auth=secret), range(240))
        tokens = {answer.raise_for_status().json()["access_token"] for answer in answers}
        keys = KeySet.import_key_set(http.get(f"{server.url}/.well-known/jwks.json").json())
    assert len(tokens) == 240
    assert all(jwt.decode(token, keys, algorithms=["RS256"]) for token in tokens)
