"""Tokens of a live server, one of a user and one of a client, for the verifiers of strangers."""

import base64
import json
from collections.abc import Callable

import pytest

from tests.live_server import LiveServer, live_server

__all__ = ["live_server"]


@pytest.fixture(scope="session")
def user_token(live_server: LiveServer) -> str:
    return str(live_server.signed_in("interop")["access_token"])


@pytest.fixture(scope="session")
def client_token(live_server: LiveServer) -> str:
    client_id, secret = live_server.create_client("interop-job", "client_credentials", scope="users:read")
    form = {"grant_type": "client_credentials"}
    return str(live_server.post("/oauth/token", data=form, auth=(client_id, secret))["access_token"])


@pytest.fixture(scope="session", params=["user", "client"])
def token(request: pytest.FixtureRequest) -> str:
    """From /auth/login, and by client_credentials."""
    return str(request.getfixturevalue(f"{request.param}_token"))


def _more_scope(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["scope"] = "roles:write"
    altered = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{altered}.{signature}"


def _other_signature(token: str) -> str:
    # Not the last character: some of its bits may not count.
    place = token.rindex(".") + 10
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


@pytest.fixture(params=[_more_scope, _other_signature], ids=["payload", "signature"])
def alter(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """One way to tamper with a token."""
    change: Callable[[str], str] = request.param
    return change
