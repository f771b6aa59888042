"""Hostile requests to every endpoint: each has one right answer, in the uniform shape, and no effect at all."""

import io
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.answers import faults, granted, word
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.hostile.requests import FORMS, JSON_REQUESTS, REQUESTS, Hostile
from tokenserver.access.models import RoleAssignment
from tokenserver.clients.models import ClientRow
from tokenserver.identity.models import User
from tokenserver.rooms import Rooms
from tokenserver.tokens.models import RefreshFamily, Session

Fill = Callable[[str], str]


def send(api: Api, row: Hostile, fill: Fill, address: str) -> Any:
    options: dict[str, Any] = {
        "headers": {name: fill(value) for name, value in row.headers.items()},
        # Each from an address of its own, so that no rate limit answers in place of what is tested.
        "environ_overrides": {"REMOTE_ADDR": address} | {name: fill(value) for name, value in row.environ.items()},
    }
    body = fill(row.body).encode() if isinstance(row.body, str) else row.body
    if row.chunked:
        # As servers hand on a body of unknown length: the end of the stream is the end of the body.
        options["input_stream"] = io.BytesIO(body)
        options["environ_overrides"] |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    else:
        options["data"] = body
    return api.http.open(fill(row.path), method=row.method, content_type=row.content_type, **options)


def wrong_with(response: Any, row: Hostile, fill: Fill) -> list[str]:
    found = faults(response)
    if (response.status_code, word(response)) != (row.status, row.word):
        found.append(f"{response.status_code} {word(response)}, not {row.status} {row.word}")
    whole = f"{response.headers}\n{response.text}"
    found += [f"the answer holds {never!r}" for never in map(fill, row.never) if never in whole]
    return found


def rows_of(rooms: Rooms) -> dict[str, int]:
    tables = (User, Session, RefreshFamily, RoleAssignment, ClientRow)
    return rooms.database.read(
        lambda tx: {t.__tablename__: tx.scalar(select(func.count()).select_from(t)) or 0 for t in tables}
    )


@pytest.fixture
def tokens(api: Api) -> dict[str, Any]:
    return api.signed_in()


@pytest.fixture
def fill(rooms: Rooms, tokens: dict[str, Any]) -> Fill:
    """Puts what only this run knows in the place of the placeholders."""
    scope = ["posts:create", "users:read", "tokens:introspect"]
    secrets = {}
    for name, method in (("poster", "client_secret_basic"), ("former", "client_secret_post")):
        _, secrets[name] = rooms.clients.create(
            client_id=name,
            client_name=name,
            grant_types=["client_credentials"],
            scope=scope,
            token_endpoint_auth_method=method,
        )
    known = {
        "{access}": tokens["access_token"],
        "{refresh}": tokens["refresh_token"],
        "{secret}": str(secrets["poster"]),
        "{former_secret}": str(secrets["former"]),
        "{basic}": b64encode(f"poster:{secrets['poster']}".encode()).decode(),
    }

    def fill(text: str) -> str:
        for name, value in known.items():
            text = text.replace(name, value)
        return text

    return fill


def test_what_the_rows_spoil_is_good(api: Api, fill: Fill):
    """Else they would be refused for another reason than the one that they name."""
    for path, form in FORMS:
        good = {name: fill(value) for name, value in form.items()}
        granted(api.http.post(path, data=good))
    tokens = api.login()
    for (method, path), body in JSON_REQUESTS.items():
        good = {name: value.replace("{refresh}", tokens["refresh_token"]) for name, value in body.items()}
        if method == "PUT":
            good |= {"username": "ann2", "email": "ann2@example.org"}
        response = api.http.open(path, method=method, json=good, headers=bearer(tokens["access_token"]))
        granted(response, 201 if path == "/auth/register" else 200)


@pytest.mark.parametrize("group", REQUESTS)
def test_hostile_requests_are_refused_and_change_nothing(
    api: Api, rooms: Rooms, tokens: dict[str, Any], fill: Fill, group: str
):
    before = rows_of(rooms)
    wrong = {}
    for number, row in enumerate(REQUESTS[group]):
        response = send(api, row, fill, f"10.{number // 250}.{number % 250}.1")
        if found := wrong_with(response, row, fill):
            wrong[row.what] = found
    assert not wrong
    assert rows_of(rooms) == before
    # Nobody was signed out, renamed or locked out, and the token that was sent around was not spent.
    assert granted(api.me(tokens["access_token"]))["username"] == "ann"
    granted(api.refresh(tokens["refresh_token"]))
    api.login()


def test_every_endpoint_has_hostile_requests(app: Any):
    """A new endpoint needs rows of its own."""
    sent = {row.path.partition("?")[0] for rows in REQUESTS.values() for row in rows}
    rules = {rule.rule for rule in app.url_map.iter_rules() if "<" not in rule.rule}
    assert rules <= sent


def test_head_and_options_answer_without_a_body(api: Api):
    for path in ("/oauth/token", "/auth/login", "/users/me", "/.well-known/jwks.json"):
        for method in ("HEAD", "OPTIONS"):
            response = api.http.open(path, method=method)
            assert (response.status_code < 500, response.data) == (True, b""), (method, path)


def test_default_accounts_don_t_exist(api: Api):
    """OWASP ASVS 6.3.2."""
    for password in ("admin", "password", "changeme", "tokenserver", ""):
        assert api.http.post("/auth/login", json={"login": "admin", "password": password}).status_code == 401
    admin = api.login("admin", ADMIN_PASSWORD)
    assert api.http.get("/users/me", headers=bearer(admin["access_token"])).json["roles"] == ["admin"]
