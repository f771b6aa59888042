"""`/clients` over HTTP: who may do what, RFC 7591's fields, RFC 9110's preconditions, dry runs, refusals."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from joserfc.jwk import ECKey
from sqlalchemy import func, select

from tests.answers import granted, refused, word
from tests.clients.conftest import Caller
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api, Apps, bearer
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.clients.metadata import OPTIONAL
from tokenserver.clients.models import ClientRow
from tokenserver.clients.registry import ADMIN_CONSOLE, BUILTIN, FIRST_PARTY
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import FeedRow
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.sessions import EndReason

KEY = ECKey.generate_key("P-256", auto_kid=True)
JWKS = {"keys": [KEY.as_dict(private=False) | {"kid": "2025-a"}]}
WEB: dict[str, Any] = {
    "client_name": "A web app",
    "redirect_uris": ["https://app.example/cb", "https://app.example/other"],
    "grant_types": ["password", "refresh_token"],
    "response_types": [],
    "scope": "openid posts:create",
    "token_endpoint_auth_method": "client_secret_post",
    "jwks": JWKS,
    "audience": ["https://api.example/", "urn:other"],
    "first_party": False,
}
JOB: dict[str, Any] = {"client_name": "A job", "grant_types": ["client_credentials"], "scope": "posts:create"}
# What is kept in one column, as it is shown where nothing was said.
REST = {name: list(default) if isinstance(default, tuple) else default for name, default in OPTIONAL.items()}
DEFAULTS: dict[str, Any] = REST | {
    "client_name": "",
    "redirect_uris": [],
    "response_types": [],
    "scope": "",
    "token_endpoint_auth_method": "client_secret_basic",
    "jwks": None,
    "audience": [],
    "first_party": False,
}
READ_ONLY = {"client_id", "client_id_issued_at", "created_at", "updated_at"}


def own_token(api: Api, client_id: str, secret: str) -> Any:
    return api.token((client_id, secret), grant_type="client_credentials")


def tag(response: Any) -> str:
    etag = response.headers["ETag"]
    assert etag.startswith('"')  # strong
    return str(etag)


# Who


def rows_for(caller: Caller) -> dict[str, Any]:
    """What each row of the table answers; the clients are there for each."""
    return {
        "GET /clients": caller.list(),
        "POST /clients": caller.post(client_id="new", **JOB),
        "GET /clients/{client_id}": caller.get("job"),
        "PUT /clients/{client_id}": caller.put("job", **JOB, audience=["urn:x"]),
        "POST /clients/{client_id}/secret": caller.rotate("job"),
        "DELETE /clients/{client_id}": caller.delete("job"),
    }


def test_each_row_for_each_caller(guest: Caller, admin: Caller, holder_of: Callable[..., Caller], app: Flask):
    tested = {row.replace("{", "<").replace("}", ">") for row in rows_for(guest)}
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/clients")]
    assert {f"{m} {r.rule}" for r in rules for m in (r.methods or set()) - {"HEAD", "OPTIONS"}} == tested

    secret = granted(admin.post(client_id="job", **JOB, audience=[]), 201)["client_secret"]
    reader = holder_of("clients:read")
    writer = holder_of("clients:write")
    for answer in rows_for(guest).values():
        refused(answer, 401, "authentication_required")
    for answer in rows_for(holder_of()).values():
        refused(answer, 403, "insufficient_scope")
    for row, answer in rows_for(reader).items():
        if row.startswith("GET"):
            granted(answer)
        else:
            refused(answer, 403, "insufficient_scope")
    own = Caller(admin.api, granted(own_token(admin.api, "job", secret))["access_token"])
    for answer in rows_for(own).values():
        refused(answer, 403, "insufficient_scope")
    for row, answer in rows_for(writer).items():
        if row.startswith("GET"):
            refused(answer, 403, "insufficient_scope")
        else:
            granted(answer, {"DELETE": 204, "PUT": 200}.get(row.split()[0], 200 if "secret" in row else 201))
    granted(admin.delete("new"), 204)
    admin.post(client_id="job", **JOB)
    assert [answer.status_code for answer in rows_for(admin).values()] == [200, 201, 200, 200, 200, 204]


def test_a_client_of_its_own_may_manage_clients(api: Api, rooms: Rooms):
    _, secret = rooms.clients.create(
        client_id="deployer",
        client_name="D",
        grant_types=["client_credentials"],
        scope=["clients:read", "clients:write", "posts:create"],
    )
    deployer = Caller(api, granted(own_token(api, "deployer", str(secret)))["access_token"])
    granted(deployer.post(client_id="job", **JOB), 201)
    refused(deployer.post(**JOB | {"scope": "users:list"}), 403, "exceeds_own_permissions")
    granted(deployer.delete("job"), 204)


# Create, read


def test_a_confidential_client_is_registered_and_its_secret_shown_once(
    api: Api, admin: Caller, recorded: Callable[[str], list[AuditEvent]]
):
    """RFC 7591 section 3.2.1"""
    answer = admin.post(client_id="web", **WEB)
    created = granted(answer, 201)
    secret = created.pop("client_secret")
    assert created.pop("client_secret_expires_at") == 0
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: created[name] for name in WEB} == WEB
    assert created.keys() == WEB.keys() | REST.keys() | READ_ONLY
    assert created["created_at"] == created["updated_at"]
    assert created["created_at"].endswith("+00:00")
    assert abs(created["client_id_issued_at"] - time.time()) < 60

    shown = admin.get("web")
    assert granted(shown) == created
    assert secret not in shown.text + admin.list().text
    assert "digest" not in shown.text
    assert shown.headers["Cache-Control"] == "no-store"
    form = {"client_id": "web", "client_secret": secret, "username": "ann", "password": PASSWORD}
    api.register()
    granted(api.token(None, grant_type="password", **form))
    refused(api.token(None, grant_type="password", **form | {"client_secret": "x"}), 401, "invalid_client")

    [event] = recorded("web")
    assert (event.event, event.outcome) == ("client:created", "success")
    assert event.details["after"]["jwks"] == [KEY.thumbprint()]
    assert {n: event.details["after"][n] for n in WEB if n != "jwks"} == {n: WEB[n] for n in WEB if n != "jwks"}
    assert secret not in json.dumps(event.details)


def test_left_out_fields_get_their_defaults(admin: Caller):
    created = granted(admin.post(grant_types=["client_credentials"]), 201)
    assert len(created["client_id"]) == 24
    assert {name: created[name] for name in DEFAULTS} == DEFAULTS
    public = granted(admin.post(grant_types=["password"], token_endpoint_auth_method="none"), 201)
    assert not public.keys() & {"client_secret", "client_secret_expires_at"}
    assert public["client_id"] != created["client_id"]


def test_what_only_the_server_decides_is_refused(admin: Caller, rooms: Rooms):
    admin.post(client_id="job", **JOB)
    before = granted(admin.get("job"))
    for name, value in {
        "client_id_issued_at": 1,
        "client_secret": "cs_x",
        "client_secret_digest": "x",
        "client_secret_expires_at": 0,
        "created_at": "2020-01-01T00:00:00+00:00",
        "updated_at": "2020-01-01T00:00:00+00:00",
        "software_statement": "x",
        "__class__": "x",
    }.items():
        for answer in (admin.post(**JOB, **{name: value}), admin.put("job", **JOB, **{name: value})):
            assert [error["field"] for error in refused(answer, 422, "validation_failed").json["errors"]] == [name]
    for client_id in ("job", "other"):
        answer = admin.put("job", **JOB, client_id=client_id)
        assert refused(answer, 422, "validation_failed").json["errors"][0]["field"] == "client_id"
    assert granted(admin.get("job")) == before
    assert len(rooms.clients.list()) == len(BUILTIN) + 1


WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("client_id", {"client_id": v}) for v in ("", "a b", "-a", "é", "a" * 129, "a/b", 1, None, ["a"])),
    ("client_id", {"client_id": "4b1d0f7e-5a43-4d0c-9a35-0a6a6b1f0c11"}),
    *(("client_name", {"client_name": v}) for v in ("x" * 256, "a\nb", "\u202e", None, 1, [])),
    *(("grant_types", {"grant_types": v}) for v in ([], ["refresh_token"], ["nope"], "password", None, {})),
    *(("grant_types.0", {"grant_types": v}) for v in ([None], [["password"]], [1])),
    *(("response_types", {"response_types": v}) for v in (["code"], "code", None)),
    *(
        ("scope", {"scope": v})
        for v in ("nope", "openid  posts:create", " openid", "openid\n", "\u2003", [], None, 1)
    ),
    *(("token_endpoint_auth_method", {"token_endpoint_auth_method": v}) for v in ("", "private_key_jwt", None, 1)),
    ("grant_types", {"token_endpoint_auth_method": "none"}),
    *(("audience", {"audience": v}) for v in (["a b"], [""], ["x" * 256], ["a", "a"], ["é"], "a", None)),
    ("audience", {"audience": [f"urn:{n}" for n in range(21)]}),
    *(("redirect_uris.0", {"redirect_uris": [v]}) for v in ("http://[", "http://localhost:80@evil", "", None, 1)),
    *(("redirect_uris.0", {"redirect_uris": [v]}) for v in ("javascript:alert(1)", "com.example.app:/cb", "/cb")),
    ("redirect_uris", {"redirect_uris": ["https://a.example/"] * 2}),
    ("redirect_uris", {"redirect_uris": "https://a.example/"}),
    *(("jwks", {"jwks": v}) for v in ({}, {"keys": []}, {"keys": None}, [], "x", 1, {"keys": [{}] * 11})),
    *(
        ("jwks.keys.0", {"jwks": {"keys": [v]}})
        for v in (None, {}, KEY.as_dict(private=True), {"kty": "oct", "k": "AQAB"})
    ),
    ("jwks", {"jwks": JWKS | {"x": "y" * 17_000}}),
    *(("first_party", {"first_party": v}) for v in (None, 1, 0, "true", "yes", 1.0, [])),
]


def test_what_metadata_may_not_be(admin: Caller, rooms: Rooms):
    admin.post(client_id="job", **JOB)
    before = granted(admin.get("job"))
    for field, change in WRONG:
        for answer in (admin.post(**JOB | change), admin.put("job", **JOB | change)):
            errors = refused(answer, 422, "validation_failed").json["errors"]
            assert [error["field"] for error in errors] == [field], change
    answer = admin.post()  # RFC 7591 section 2: the default is the code grant
    assert [e["field"] for e in refused(answer, 422, "validation_failed").json["errors"]] == ["redirect_uris"]
    assert granted(admin.get("job")) == before
    assert len(rooms.clients.list()) == len(BUILTIN) + 1


def test_what_a_database_could_not_hold_never_reaches_it(admin: Caller):
    for text in (r'"a\u0000b"', r'"\ud800"', '"\x00"'):
        for field in ("client_name", "client_id", "scope"):
            body = f'{{"grant_types": ["password"], "{field}": {text}}}'
            answer = admin.ask("POST", data=body, content_type="application/json")
            refused(answer, 400, "malformed_request")
    # JSON has no NaN, Python reads it; a member of a key that isn't understood isn't kept
    more = '{"grant_types": ["password"], "client_id": "web", "jwks": {"x": NaN, "keys": [%s]}}'
    key = json.dumps(JWKS["keys"][0])[:-1] + ', "more": [NaN, Infinity, 1e999]}'
    granted(admin.ask("POST", data=more % key, content_type="application/json"), 201)
    assert granted(admin.get("web"))["jwks"] == JWKS


def test_ids_that_nobody_has(admin: Caller):
    for client_id in ("nobody", "a%00b", "%ff", "%ED%A0%80", "'%20OR%201=1", "x" * 3000, "..", "%20", "JOB"):
        for answer in (
            admin.get(client_id),
            admin.put(client_id, **JOB),
            admin.delete(client_id),
            admin.rotate(client_id),
        ):
            assert answer.status_code == 404
            assert not client_id.isalpha() or word(answer) == "client_not_found"


def test_one_id_for_many_at_once(app: Flask, admin: Caller):
    start = Barrier(5)

    def create(number: int) -> tuple[int, str]:
        start.wait()
        caller = Caller(Api(app.test_client()), admin.token)
        answer = caller.post(client_id="job", **JOB | {"client_name": str(number)})
        return answer.status_code, word(answer)

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(create, range(5))) == [(201, ""), *[(409, "client_exists")] * 4]
    refused(admin.post(client_id="job", **JOB), 409, "client_exists")
    refused(admin.post(client_id=FIRST_PARTY, **JOB), 409, "client_exists")


# List


def ids(page: dict[str, Any]) -> list[str]:
    return [item["client_id"] for item in page["items"]]


def test_list_in_pages(admin: Caller):
    for number in range(5):
        granted(admin.post(client_id=f"c{number}", **JOB), 201)
    everything = granted(admin.list())
    listed = [ADMIN_CONSOLE, "c0", "c1", "c2", "c3", "c4", FIRST_PARTY]
    assert (ids(everything), everything["next_cursor"]) == (listed, None)
    assert everything["items"][1] == granted(admin.get("c0"))
    seen, query = [], {"limit": 2}
    while True:
        page = granted(admin.list(**query))
        seen.append(ids(page))
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        # What comes and goes meanwhile doesn't shift the pages.
        admin.delete(seen[-1][-1])
    assert seen == [[ADMIN_CONSOLE, "c0"], ["c1", "c2"], ["c3", "c4"], [FIRST_PARTY]]


def test_search(admin: Caller):
    names = {"alpha": "Billing job", "beta": "50% off_er", "gamma": "Bücher/Söhne", "BILLY": "x"}
    for client_id, name in names.items():
        granted(admin.post(client_id=client_id, **JOB | {"client_name": name}), 201)
    for words, found in {
        "bill": {"alpha", "BILLY"},
        "BILL": {"alpha", "BILLY"},
        "g j": {"alpha"},
        "lpha": {"alpha"},
        "%": {"beta"},
        "_": {"beta"},
        "0% o": {"beta"},
        "/": {"gamma"},
        "Büch": {"gamma"},
        "\\": set(),
        "'": {FIRST_PARTY},
        "nothing like it": set(),
        "": {*names, *BUILTIN},
    }.items():
        assert set(ids(granted(admin.list(q=words)))) == found, words
    page = granted(admin.list(q="bill", limit=1))
    rest = granted(admin.list(q="bill", limit=1, cursor=page["next_cursor"]))
    assert sorted(ids(page) + ids(rest)) == ["BILLY", "alpha"]
    assert rest["next_cursor"] is None
    for query in ({"q": "other"}, {}):
        answer = admin.list(cursor=page["next_cursor"], **query)
        assert refused(answer, 422, "validation_failed").json["errors"][0]["field"] == "cursor"
    for query in ({"q": "x" * 256}, {"limit": 0}, {"limit": 101}, {"order": "x"}):
        refused(admin.list(**query), 422, "validation_failed")
    refused(admin.list(q="a\0"), 400, "malformed_request")


def test_a_page_costs_one_query(admin: Caller, app: Flask, queries: Callable[[Flask], Any]):
    def cost() -> int:
        granted(admin.list())
        with queries(app) as counter:
            granted(admin.list(q="c"))
        return int(counter.count)

    before = cost()
    for number in range(10):
        admin.post(client_id=f"c{number}", **JOB)
    assert cost() == before


# Update


def test_put_replaces_all_but_the_id(admin: Caller, recorded: Callable[[str], list[AuditEvent]]):
    created = granted(admin.post(client_id="web", **WEB), 201)
    changed = granted(admin.put("web", grant_types=["password"]))
    assert {n: changed[n] for n in DEFAULTS} == DEFAULTS
    assert changed["grant_types"] == ["password"]
    assert changed.keys() == WEB.keys() | REST.keys() | READ_ONLY  # no secret
    assert changed["updated_at"] > changed["created_at"] == created["created_at"]
    assert changed == granted(admin.get("web"))
    back = granted(admin.put("web", **WEB))
    assert {name: back[name] for name in WEB} == WEB

    events = recorded("web")
    assert [event.event for event in events] == ["client:created", "client:updated", "client:updated"]
    names = {*DEFAULTS, "grant_types"} - REST.keys() - {"first_party", "response_types"}
    first, second = events[1].details, events[2].details
    assert first.keys() == second.keys() == {"before", "after"}
    assert first["before"].keys() == first["after"].keys() == names
    assert (first["before"], first["after"]) == (second["after"], second["before"])
    assert first["before"]["jwks"] == [KEY.thumbprint()]
    assert first["after"]["jwks"] is None


def test_put_of_what_is_there_changes_nothing(
    admin: Caller, rooms: Rooms, recorded: Callable[[str], list[AuditEvent]]
):
    admin.post(client_id="web", **WEB)
    before = admin.get("web")
    entries = rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(FeedRow)))
    answer = admin.put(
        "web", **WEB | {"grant_types": ["refresh_token", "password"], "scope": "posts:create openid"}
    )
    assert (granted(answer), tag(answer)) == (granted(before), tag(before))
    assert len(recorded("web")) == 1
    assert rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(FeedRow))) == entries


def test_a_client_becomes_confidential_and_public_again(api: Api, admin: Caller, app_tokens: Any):
    api.register()
    tokens = app_tokens("ann")
    fields = {"client_name": "An app", "grant_types": ["password", "refresh_token"], "scope": "posts:create"}
    answer = admin.put("app", **fields, token_endpoint_auth_method="client_secret_basic")
    assert tag(answer) == tag(admin.get("app"))  # the secret is no part of the client
    changed = granted(answer)
    secret = changed["client_secret"]
    assert changed["client_secret_expires_at"] == 0
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    refused(api.token(None, **form, client_id="app"), 401, "invalid_client")
    granted(api.me(tokens["access_token"]))
    tokens = granted(api.token(("app", secret), **form))  # its sessions live

    again = granted(admin.put("app", **fields, token_endpoint_auth_method="client_secret_post"))
    assert "client_secret" not in again  # the one it has is good for both
    form["refresh_token"] = tokens["refresh_token"]
    tokens = granted(api.token(None, **form, client_id="app", client_secret=secret))
    granted(admin.put("app", **fields, token_endpoint_auth_method="none"))
    form["refresh_token"] = tokens["refresh_token"]
    refused(api.token(("app", secret), **form), 401, "invalid_client")
    granted(api.token(None, **form, client_id="app"))
    other = granted(admin.put("app", **fields))["client_secret"]
    assert other != secret
    refused(api.token(("app", secret), **form), 401, "invalid_client")


def test_what_a_put_takes_away_is_gone_in_every_process(apps: Apps, api_of: Callable[[Flask], Api]):
    first, second = apps(), apps()
    here, there = api_of(first), api_of(second)
    admin = Caller(here, here.login("admin", ADMIN_PASSWORD)["access_token"])
    job = JOB | {"scope": "clients:read posts:create"}
    secret = granted(admin.post(client_id="job", **job), 201)["client_secret"]
    own = granted(own_token(there, "job", secret))["access_token"]
    granted(Caller(there, own).list())

    granted(admin.put("job", **JOB))
    for api in (there, here):
        refused(Caller(api, own).list(), 403, "permission_denied")
        assert granted(own_token(api, "job", secret))["scope"] == "posts:create"
    granted(admin.put("job", **job | {"grant_types": ["password"]}))
    for api in (there, here):
        refused(Caller(api, own).list(), 403, "permission_denied")
        refused(own_token(api, "job", secret), 400, "unauthorized_client")


def test_a_grant_that_is_taken_away(api: Api, admin: Caller, app_tokens: Any):
    api.register()
    tokens = app_tokens("ann")
    granted(admin.put("app", grant_types=["password"], token_endpoint_auth_method="none", scope="openid"))
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "app"}
    refused(api.token(None, **form), 400, "unauthorized_client")
    # What was issued keeps its scope for its short life.
    post = {"title": "t", "body": "b"}
    granted(api.http.post("/posts", json=post, headers=bearer(tokens["access_token"])), 201)
    assert app_tokens("ann")["scope"] == "openid"


# Versions


def test_if_match(admin: Caller):
    """RFC 9110 section 13.1.1"""
    secret = granted(admin.post(client_id="job", **JOB), 201)["client_secret"]
    first = tag(admin.get("job"))
    answer = admin.put("job", first, **JOB, audience=["urn:x"])
    granted(answer)
    second = tag(answer)
    assert second == tag(admin.get("job")) != first
    writes: list[Callable[[str], Any]] = [
        lambda match: admin.put("job", match, **JOB),
        lambda match: admin.ask("POST", "/job/secret", headers={"If-Match": match}),
        lambda match: admin.ask("DELETE", "/job", headers={"If-Match": match}),
    ]
    for write in writes:
        for match in (first, '"x"', f"W/{second}", "nonsense"):
            refused(write(match), 412, "precondition_failed")
    assert tag(admin.get("job")) == second
    granted(own_token(admin.api, "job", secret))
    granted(admin.put("job", f'"x", {second}', **JOB))
    granted(admin.put("job", "*", **JOB, audience=["urn:y"]))
    third = tag(admin.get("job"))
    granted(admin.ask("POST", "/job/secret", headers={"If-Match": third}))
    refused(admin.ask("DELETE", "/job", headers={"If-Match": third}), 412, "precondition_failed")
    granted(admin.ask("DELETE", "/job", headers={"If-Match": tag(admin.get("job"))}), 204)
    refused(admin.ask("DELETE", "/job", headers={"If-Match": "*"}), 404, "client_not_found")


def test_of_two_updates_of_one_version_one_wins(app: Flask, admin: Caller):
    admin.post(client_id="job", **JOB)
    for _ in range(3):
        version, start = tag(admin.get("job")), Barrier(4)

        def put(number: int, version: str = version, start: Barrier = start) -> int:
            caller = Caller(Api(app.test_client()), admin.token)
            start.wait()
            return int(caller.put("job", version, **JOB, audience=[f"urn:{version[1:9]}:{number}"]).status_code)

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(put, range(4))) == [200, 412, 412, 412]


# Delete, rotate


def test_delete_ends_its_sessions_and_tokens_and_nobody_else_s(
    api: Api, admin: Caller, app_tokens: Any, rooms: Rooms, recorded: Callable[[str], list[AuditEvent]]
):
    other = api.signed_in()
    tokens = app_tokens("ann")
    granted(api.me(tokens["access_token"]))
    granted(admin.delete("app"), 204)
    refused(api.me(tokens["access_token"]), 401, "invalid_token")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "app"}
    refused(api.token(None, **form), 401, "invalid_client")
    refused(admin.get("app"), 404, "client_not_found")
    refused(admin.delete("app"), 404, "client_not_found")
    granted(api.me(other["access_token"]))
    granted(api.refresh(other["refresh_token"]))
    ended = rooms.database.read(lambda tx: tx.scalars(select(Session).where(Session.ended_at.is_not(None))).all())
    assert [(session.client_id, session.end_reason) for session in ended] == [("app", "client_deleted")]
    assert recorded("app")[-1].event == "client:deleted"
    assert recorded("app")[-1].details["before"]["scope"] == "posts:create"


def test_a_new_secret(
    apps: Apps, api_of: Callable[[Flask], Api], recorded_in: Callable[[Rooms, str], list[AuditEvent]]
):
    first, second = apps(), apps()
    here, there = api_of(first), api_of(second)
    admin = Caller(here, here.login("admin", ADMIN_PASSWORD)["access_token"])
    old = granted(admin.post(client_id="job", **JOB), 201)["client_secret"]
    own = granted(own_token(there, "job", old))["access_token"]
    answer = admin.rotate("job")
    new = granted(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert new == {"client_id": "job", "client_secret": new["client_secret"], "client_secret_expires_at": 0}
    for api in (there, here):
        refused(own_token(api, "job", old), 401, "invalid_client")
        granted(own_token(api, "job", new["client_secret"]))
        assert api.introspect(("job", new["client_secret"]), own).json["active"] is True
    events = recorded_in(rooms_of(first), "job")
    assert [event.event for event in events] == ["client:created", "client:secret_rotated"]
    assert new["client_secret"] not in json.dumps(events[1].details)
    public = granted(admin.post(grant_types=["password"], token_endpoint_auth_method="none"), 201)["client_id"]
    refused(admin.rotate(public), 409, "public_client")
    refused(admin.rotate(FIRST_PARTY), 409, "public_client")


def test_built_in_client(api: Api, admin: Caller):
    shown = granted(admin.get(FIRST_PARTY))
    fields = {name: shown[name] for name in WEB}
    refused(admin.delete(FIRST_PARTY), 409, "builtin_client")
    for change in (
        {"grant_types": ["password"]},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"first_party": False},
        {"audience": ["urn:elsewhere"]},
    ):
        refused(admin.put(FIRST_PARTY, **fields | change), 409, "builtin_client")
    assert granted(admin.get(FIRST_PARTY)) == shown
    renamed = granted(admin.put(FIRST_PARTY, **fields | {"client_name": "Sign-in", "redirect_uris": ["a.b:/"]}))
    assert renamed["client_name"] == "Sign-in"
    granted(api.me(api.signed_in()["access_token"]))


# Nobody reaches further through a client than by themselves


REACHING: dict[str, dict[str, Any]] = {
    "its own tokens": {"grant_types": ["client_credentials"], "scope": "users:list"},
    "among others": {"grant_types": ["password", "client_credentials"], "scope": "openid posts:create users:list"},
    "its secret is enough": {"grant_types": ["password"], "scope": "tokens:introspect"},
    "all that anybody holds": {"grant_types": ["password"], "first_party": True},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "users' tokens": {"grant_types": ["password"], "scope": "users:list"},
    "what the caller holds": {"grant_types": ["client_credentials"], "scope": "openid posts:create clients:write"},
    "only a name": {
        "grant_types": ["password"],
        "scope": "tokens:introspect",
        "token_endpoint_auth_method": "none",
    },
}


@pytest.mark.parametrize("fields", REACHING.values(), ids=REACHING)
def test_nobody_decides_about_a_client_that_reaches_further(
    fields: dict[str, Any], admin: Caller, holder_of: Callable[..., Caller], rooms: Rooms
):
    writer = holder_of("clients:write")
    admin.post(client_id="job", **JOB)
    admin.post(client_id="strong", **fields)
    strong, weak = granted(admin.get("strong")), granted(admin.get("job"))
    events = rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(AuditEvent)))
    for suffix in ("", "?dry_run=true"):
        for answer in (
            writer.ask("POST", suffix, json=fields),
            writer.ask("PUT", f"/job{suffix}", json=fields),  # after
            writer.ask("PUT", f"/strong{suffix}", json=JOB),  # before
            writer.ask("PUT", f"/strong{suffix}", json=fields | {"client_name": "Mine"}),
            writer.ask("POST", f"/strong/secret{suffix}"),
            writer.ask("DELETE", f"/strong{suffix}"),
        ):
            refused(answer, 403, "exceeds_own_permissions")
    # Who may not write learns nothing from versions.
    answer = writer.ask("DELETE", "/strong", headers={"If-Match": '"x"'})
    refused(answer, 403, "exceeds_own_permissions")
    assert (granted(admin.get("strong")), granted(admin.get("job"))) == (strong, weak)
    assert rooms.database.read(lambda tx: tx.scalar(select(func.count()).select_from(AuditEvent))) == events
    assert len(rooms.clients.list()) == len(BUILTIN) + 2


@pytest.mark.parametrize("fields", HARMLESS.values(), ids=HARMLESS)
def test_a_client_that_reaches_no_further(fields: dict[str, Any], holder_of: Callable[..., Caller]):
    writer = holder_of("clients:write")
    granted(writer.post(client_id="job", **fields), 201)
    granted(writer.put("job", **fields | {"client_name": "Mine"}))
    if "token_endpoint_auth_method" not in fields:
        granted(writer.rotate("job"))
    granted(writer.delete("job"), 204)


def test_the_token_must_cover_it_too(api: Api, rooms: Rooms):
    """The admin holds everything; a token that was issued for less gives away less."""
    rooms.clients.create(
        client_id="console",
        client_name="C",
        grant_types=["password"],
        scope=["clients:write", "posts:create", "users:list"],
        token_endpoint_auth_method="none",
    )
    form = {"username": "admin", "password": ADMIN_PASSWORD, "client_id": "console"}
    narrow = granted(api.token(None, grant_type="password", scope="clients:write", **form))["access_token"]
    wide = granted(api.token(None, grant_type="password", scope="clients:write posts:create", **form))[
        "access_token"
    ]
    refused(Caller(api, narrow).post(**JOB), 403, "exceeds_own_permissions")
    granted(Caller(api, wide).post(**JOB), 201)


# Dry runs


def state(rooms: Rooms) -> list[Any]:
    def read(tx: Any) -> list[Any]:
        tables = (ClientRow, Session, RefreshFamily, FeedRow, AuditEvent)
        rows = [tuple(row) for table in tables for row in tx.execute(select(table.__table__)).all()]
        return sorted(map(repr, rows))

    return rooms.database.read(read)


def rehearsed(answer: Any, session_count: int = 0, **permissions: tuple[list[str], list[str]]) -> None:
    clients = [{"client_id": c, "gains": gains, "loses": loses} for c, (gains, loses) in permissions.items()]
    assert granted(answer) == {
        "dry_run": True,
        "user_count": 0,
        "session_count": session_count,
        "users": [],
        "clients": clients,
    }


def test_dry_runs_tell_and_change_nothing(api: Api, admin: Caller, rooms: Rooms, app_tokens: Any):
    for username in ("ann", "bob"):
        api.register(username)
    tokens = [app_tokens("ann"), app_tokens("ann"), app_tokens("bob")]
    api.login("ann")
    granted(api.revoke(tokens[0]["refresh_token"], "app"))  # one session over
    secret = granted(admin.post(client_id="job", **JOB), 201)["client_secret"]
    before = state(rooms)

    def ask(method: str, path: str, **options: Any) -> Any:
        return admin.ask(method, f"{path}?dry_run=true", **options)

    rehearsed(ask("POST", "", json=JOB | {"client_id": "new"}), new=(["posts:create"], []))
    rehearsed(ask("POST", "", json={"grant_types": ["password"], "scope": "users:list"}))
    both = JOB | {"scope": "openid users:list users:read"}
    rehearsed(ask("PUT", "/job", json=both), job=(["users:list", "users:read"], ["posts:create"]))
    rehearsed(ask("PUT", "/job", json=JOB | {"grant_types": ["password"]}), job=([], ["posts:create"]))
    rehearsed(ask("PUT", "/job", json=JOB | {"audience": ["urn:x"]}))
    rehearsed(ask("POST", "/job/secret"))
    rehearsed(ask("DELETE", "/job"), job=([], ["posts:create"]))
    public = {"grant_types": ["password", "refresh_token"], "token_endpoint_auth_method": "none"}
    rehearsed(ask("PUT", "/app", json=public), 2)
    rehearsed(ask("PUT", "/app", json={"grant_types": ["password"], "scope": "posts:create"}), 2)
    rehearsed(ask("PUT", "/app", json=public | {"scope": "posts:create", "client_name": "Other"}))
    rehearsed(ask("DELETE", "/app"), 2)

    # What would be refused is refused.
    refused(ask("POST", "", json=JOB | {"client_id": "job"}), 409, "client_exists")
    refused(ask("POST", "", json={}), 422, "validation_failed")
    refused(ask("PUT", "/nobody", json=JOB), 404, "client_not_found")
    refused(ask("PUT", "/job", json=JOB, headers={"If-Match": '"x"'}), 412, "precondition_failed")
    refused(ask("DELETE", f"/{FIRST_PARTY}"), 409, "builtin_client")
    refused(ask("POST", "/app/secret"), 409, "public_client")
    refused(admin.ask("DELETE", "/job?dry_run=1"), 422, "validation_failed")
    refused(admin.ask("DELETE", "/job?dryrun=true"), 422, "validation_failed")
    assert state(rooms) == before
    granted(own_token(api, "job", secret))
    granted(api.me(tokens[1]["access_token"]))
    assert granted(admin.ask("DELETE", "/app?dry_run=false"), 204) == {}
    refused(api.me(tokens[1]["access_token"]), 401, "invalid_token")


def test_sessions_that_are_counted(rooms: Rooms, api: Api, admin: Caller):
    """Those that never had a family, too; not those that are over, and not those of others."""
    rooms.clients.create(
        client_id="app", client_name="A", grant_types=["password"], token_endpoint_auth_method="none"
    )
    api.register()
    for client_id in ("app", "app", "app", FIRST_PARTY):
        form = {"username": "ann", "password": PASSWORD, "client_id": client_id}
        granted(api.token(None, grant_type="password", **form))
    query = select(Session.id).where(Session.client_id == "app").limit(1)
    first = rooms.database.read(lambda tx: tx.scalars(query).one())
    rooms.feed.change(lambda tx, c: rooms.sessions.end(tx, c, session_id=first, reason=EndReason.LOGOUT))
    assert granted(admin.ask("DELETE", "/app?dry_run=true"))["session_count"] == 2


# Over and over


def test_everything_about_a_client_is_provable(admin: Caller, rooms: Rooms):
    """`audit.chain`: details hold no fractions, which a database may spell otherwise."""
    admin.post(client_id="web", **WEB)
    admin.put("web", **WEB | {"scope": "", "jwks": None})
    admin.rotate("web")
    admin.delete("web")
    query = select(AuditEvent).where(AuditEvent.target == "web")
    details = [event.details for event in rooms.database.read(lambda tx: tx.scalars(query).all())]
    assert len(details) == 4

    def values(value: Any) -> list[Any]:
        members = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value, *(each for member in members for each in values(member))]

    assert not [value for value in values(details) if isinstance(value, float)]
    words = {value for value in values(details) if isinstance(value, str)}
    assert KEY.thumbprint() in words
    assert not {"x", "y", "kid", "client_secret", "client_secret_digest", KEY.as_dict(private=False)["x"]} & words
