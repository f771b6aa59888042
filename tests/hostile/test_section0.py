"""Hostile requests to every endpoint: each has one right answer, in the uniform shape, and no effect at all."""

import io
import json
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import select
from werkzeug.exceptions import HTTPException

from tests.answers import faults, granted, word
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.hostile import requests
from tests.hostile.console_requests import CONSOLE_REQUESTS
from tests.hostile.every_endpoint import NOBODY
from tests.hostile.factor_requests import FACTOR_REQUESTS
from tests.hostile.fetch_requests import FETCHES
from tests.hostile.mail_requests import MAIL_REQUESTS
from tests.hostile.oidc_requests import CALLBACK, OIDC_REQUESTS
from tests.hostile.requests import FORMS, JSON_REQUESTS, METHODS, Hostile, headers_for
from tests.hostile.rest_requests import LISTS, REST_REQUESTS
from tests.listeners import Listener
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.audit.events import Event
from tokenserver.audit.models import AuditEvent
from tokenserver.clients.models import ClientRow
from tokenserver.identity.models import User
from tokenserver.oauth.models import DeviceCode
from tokenserver.posts.models import Post
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily, Session

REQUESTS = (
    requests.REQUESTS | REST_REQUESTS | OIDC_REQUESTS | FACTOR_REQUESTS | MAIL_REQUESTS | FETCHES | CONSOLE_REQUESTS
)
Fill = Callable[[str], str]
Words = Mapping[str, str]


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
    found = [fault for fault in faults(response) if not (row.page and fault.startswith("Content-Type text/html"))]
    if (response.status_code, word(response)) != (row.status, row.word):
        found.append(f"{response.status_code} {word(response)}, not {row.status} {row.word}")
    whole = f"{response.headers}\n{response.text}"
    found += [f"the answer holds {never!r}" for never in map(fill, row.never) if never in whole]
    return found


def state_of(rooms: Rooms) -> dict[str, list[str]]:
    """All that a request could change; of the log, what was done."""
    kept = (User, Session, RefreshFamily, Role, RolePermission, RoleAssignment, ClientRow, Post, DeviceCode)
    done = (AuditEvent.outcome == "success", AuditEvent.event != Event.ACCESS_ALLOWED.value)
    log = select(AuditEvent.event, AuditEvent.target).where(*done)
    rooms.trail.drain_all()

    def read(tx: Transaction) -> dict[str, Any]:
        found: dict[str, Any] = {each.__tablename__: tx.execute(select(*each.__table__.columns)) for each in kept}
        return {name: sorted(map(str, rows)) for name, rows in (found | {"log": tx.execute(log)}).items()}

    keys = sorted(f"{entry.kid} {entry.state}" for entry in rooms.keys.entries())
    return rooms.database.read(read) | {"keys": keys}


@pytest.fixture
def tokens(api: Api) -> dict[str, Any]:
    return api.signed_in()


@pytest.fixture
def listener(listen: Callable[..., Listener]) -> Listener:
    """At a port that nobody has a reason to knock at."""
    return listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")


@pytest.fixture
def fill(api: Api, rooms: Rooms, tokens: dict[str, Any], listener: Listener) -> Fill:
    """Puts what only this run knows in the place of the placeholders."""
    scope = ["posts:create", "users:read", "tokens:introspect"]
    secrets = {}
    for name, method in (("poster", "client_secret_basic"), ("former", "client_secret_post")):
        _, secrets[name] = rooms.clients.create(
            client_id=name,
            client_name=name,
            grant_types=["client_credentials", requests.EXCHANGE],
            scope=scope,
            token_endpoint_auth_method=method,
            token_exchange={"clients": [name], "impersonation": True, "delegation": True},
        )
    rooms.clients.create(
        client_id="tv",
        client_name="tv",
        grant_types=["urn:ietf:params:oauth:grant-type:device_code"],
        scope=scope,
        token_endpoint_auth_method="none",
    )
    rooms.clients.create(
        client_id="web",
        client_name="A site",
        grant_types=["authorization_code"],
        redirect_uris=[CALLBACK],
        scope=["openid"],
    )
    words = {
        "listener": str(listener.port),
        "access": tokens["access_token"],
        "refresh": tokens["refresh_token"],
        "secret": str(secrets["poster"]),
        "former_secret": str(secrets["former"]),
        "basic": b64encode(f"poster:{secrets['poster']}".encode()).decode(),
    }
    form = requests.FORMER | {"client_secret": words["former_secret"], "grant_type": "client_credentials"}
    words["own"] = granted(api.token(**form))["access_token"]
    words |= tokens_of_others(api, words)
    words |= resources(api, words)
    # Those first whose names hold others.
    known = {f"{{{name}}}": value for name, value in (versions(api, words) | cursors(api, words) | words).items()}

    def fill(text: str) -> str:
        if "{" in text:
            for name, value in known.items():
                text = text.replace(name, value)
        return text

    return fill


def tokens_of_others(api: Api, words: Words) -> dict[str, str]:
    admin = api.login("admin", ADMIN_PASSWORD)
    made, refresh_token = {}, admin["refresh_token"]
    for name, scope in (
        ("narrow", "posts:create"),
        ("revoked", "posts:create"),
        ("assigner", "roles:assign roles:write clients:write"),
    ):
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": refresh_token}
        answer = granted(api.token(**form, scope=scope))
        made[name], refresh_token = answer["access_token"], answer["refresh_token"]
    granted(api.revoke(made["revoked"]))
    own = api.token(("poster", words["secret"]), grant_type="client_credentials", scope="posts:create users:read")
    header, payload, signature = admin["access_token"].split(".")
    nothing = urlsafe_b64encode(b'{"typ": "at+jwt", "alg": "none"}').decode().rstrip("=")
    return made | {
        "admin_access": admin["access_token"],
        "poster": granted(own)["access_token"],
        "tampered": f"{header}.{payload}.{turned(signature, 40)}",
        "unsigned": f"{nothing}.{payload}.",
    }


def resources(api: Api, words: Words) -> dict[str, str]:
    """Ids of users, roles, posts and sessions."""
    ann, admin = bearer(words["access"]), bearer(words["admin_access"])

    def post(headers: dict[str, str], title: str, *, public: bool) -> str:
        body = {"title": title, "body": title, "public": public}
        return str(granted(api.http.post("/posts", json=body, headers=headers), 201)["id"])

    def other_session(headers: dict[str, str]) -> str:
        items = granted(api.http.get("/users/me/sessions", headers=headers))["items"]
        return str(next(item["id"] for item in items if not item["current"]))

    for name, permissions in (("premium", ["posts:create", "users:read"]), ("spare", ["logs:read"])):
        granted(api.http.post("/roles", json={"name": name, "permissions": permissions}, headers=admin), 201)
    users = {
        name: granted(api.me(words[key]))["id"] for name, key in (("ann", "access"), ("admin", "admin_access"))
    }
    roles = {"roles": ["admin", "premium"]}
    granted(api.http.put(f"/users/{users['admin']}/roles", json=roles, headers=admin))
    api.login()
    api.login("admin", ADMIN_PASSWORD)
    return users | {
        "admin_role": granted(api.http.get("/roles/admin", headers=admin))["id"],
        "ann_session": other_session(ann),
        "admin_session": other_session(admin),
        "post": post(admin, "Open", public=True),
        "other_post": post(admin, "Open too", public=True),
        "private": post(admin, "Secret of the admin", public=False),
        "anns_private": post(ann, "Secret of Ann", public=False),
    }


def versions(api: Api, words: Words) -> dict[str, str]:
    admin = bearer(words["admin_access"])
    return {
        f"etag of {path}": api.http.get(path.format(**words), headers=admin).headers["ETag"]
        for path in ("/roles/premium", "/roles/spare", "/users/{ann}", "/users/{admin}", "/clients/poster")
    }


def cursors(api: Api, words: Words) -> dict[str, str]:
    """One of each list, and what else could be made of it."""
    first_pages = {"guests": api.http.get("/posts?limit=1")}
    for path, headers in LISTS.items():
        token = {name: value.format(**words) for name, value in headers.items()}
        first_pages[path] = api.http.get(f"{path}?limit=1", headers=token)
    found = {}
    for name, page in first_pages.items():
        cursor = granted(page)["next_cursor"]
        found |= {
            f"cursor of {name}": cursor,
            f"half of the cursor of {name}": cursor[: len(cursor) // 2],
            f"cursor of {name} with a bit of the MAC turned": turned(cursor, 4),
            f"cursor of {name} with a bit of the place turned": turned(cursor, -3),
        }
    return found


def turned(text: str, position: int) -> str:
    """One bit of what it encodes."""
    raw = bytearray(urlsafe_b64decode(text + "=="))
    raw[position] ^= 1
    return urlsafe_b64encode(raw).decode().rstrip("=")


def test_what_the_rows_spoil_is_good(api: Api, fill: Fill):
    """Else they would be refused for another reason than the one that they name."""
    for path, form in FORMS:
        good = {name: fill(value) for name, value in form.items()}
        granted(api.http.post(path, data=good))
    tokens = api.login()

    def now(text: str) -> str:
        return fill(text.replace("{access}", tokens["access_token"]).replace("{refresh}", tokens["refresh_token"]))

    for (method, path), body in JSON_REQUESTS.items():
        fresh = {"username": "ann2", "email": "ann2@example.org"} if path == "/users/me" else {}
        response = api.http.open(
            fill(path),
            method=method,
            data=now(json.dumps(body | fresh)),
            content_type="application/json",
            headers={name: now(value) for name, value in headers_for(path).items()},
        )
        granted(response, 201 if path in {"/auth/register", "/roles", "/posts", "/clients"} else 200)


@pytest.mark.parametrize("group", REQUESTS)
def test_hostile_requests_are_refused_and_change_nothing(
    api: Api, rooms: Rooms, tokens: dict[str, Any], fill: Fill, listener: Listener, group: str
):
    before = state_of(rooms)
    wrong = {}
    for number, row in enumerate(REQUESTS[group]):
        response = send(api, row, fill, f"10.{number // 250}.{number % 250}.1")
        if found := wrong_with(response, row, fill):
            wrong[row.what] = found
    assert not wrong, json.dumps(wrong, indent=1)
    assert state_of(rooms) == before
    assert listener.connections == 0
    # Nobody was signed out, renamed or locked out, and the token that was sent around was not spent.
    assert granted(api.me(tokens["access_token"]))["username"] == "ann"
    granted(api.refresh(tokens["refresh_token"]))
    api.login()


def test_every_endpoint_has_hostile_requests(app: Any):
    """A new endpoint needs rows of its own, and so does a new method of an old one."""
    routes = app.url_map.bind("localhost")
    sent = set()
    for row in (row for rows in REQUESTS.values() for row in rows):
        # Every id is a UUID.
        path = re.sub(r"{\w+}", NOBODY, row.path.partition("?")[0])
        try:
            rule, _ = routes.match(unquote(path), row.method, return_rule=True)
        except HTTPException:
            continue
        sent.add((row.method, rule.rule))
    there = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods}
    assert {each for each in there if each[0] not in {"HEAD", "OPTIONS"}} - sent == set()


def test_head_and_options_answer_without_a_body(api: Api, fill: Fill):
    for path in METHODS:
        for method in ("HEAD", "OPTIONS"):
            headers = {name: fill(value) for name, value in headers_for(path).items()}
            response = api.http.open(fill(path), method=method, headers=headers)
            assert (response.status_code < 500, response.data) == (True, b""), (method, path)


def test_default_accounts_don_t_exist(api: Api):
    """OWASP ASVS 6.3.2."""
    for password in ("admin", "password", "changeme", "tokenserver", ""):
        assert api.http.post("/auth/login", json={"login": "admin", "password": password}).status_code == 401
    admin = api.login("admin", ADMIN_PASSWORD)
    assert api.http.get("/users/me", headers=bearer(admin["access_token"])).json["roles"] == ["admin"]
