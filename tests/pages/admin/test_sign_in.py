"""The way into the console and out: the code flow, its cookie, the tokens behind it."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from tests.access.story import events, make_role
from tests.answers import granted
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.pages.admin.conftest import HOME, ISSUER, Visitor
from tests.person import Person
from tests.redis_access import raw_redis
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.clients.registry import ADMIN_CONSOLE
from tokenserver.rooms import Rooms
from tokenserver.storage import sealing
from tokenserver.storage.feed import now_ms
from tokenserver.verify.flask import requires

CALLBACK = f"{ISSUER}{HOME}/callback"


def keys_of_console(rooms: Rooms) -> list[str]:
    client = raw_redis(rooms.store)
    return sorted(key for key in client.keys("*") if re.fullmatch(r"ts:\{\d+\}:c:[0-9a-f]{64}", key))


def test_it_asks_as_any_client_would(app: Flask):
    http = app.test_client()
    assert http.get("/admin").headers["Location"] == HOME
    answer = http.get(f"{HOME}/users?q=ann")
    assert answer.status_code == 303
    location = urlsplit(answer.headers["Location"])
    asked = {name: value for name, (value,) in parse_qs(location.query).items()}
    assert location.path == "/oauth/authorize"
    assert asked.pop("scope").split() == ["openid", *sorted(PERMISSIONS)]
    for random in ("state", "nonce", "code_challenge"):
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", asked.pop(random))
    assert asked == {
        "response_type": "code",
        "client_id": ADMIN_CONSOLE,
        "redirect_uri": CALLBACK,
        "code_challenge_method": "S256",
    }


def test_in_and_on_to_where_one_wanted(visitor_of: Callable[..., Visitor], rooms: Rooms):
    visitor = visitor_of()
    page = visitor.enter("/users?q=adm")
    assert page.url == f"{ISSUER}{HOME}/users?q=adm"
    assert ">admin</a>" in page.text
    # OWASP ASVS 3.3: out of reach for scripts and other sites.
    (cookie,) = set_by(visitor_of(), rooms)
    assert re.fullmatch(r"tokenserver_console=[A-Za-z0-9_-]{43}; HttpOnly; Path=/; SameSite=Strict", cookie)


def set_by(visitor: Visitor, rooms: Rooms) -> list[str]:
    """The cookies of the console, as the way in sets them."""
    found: list[str] = []
    send = visitor.person.transport

    def listening(*request: Any) -> Any:
        answer = send(*request)
        found.extend(value for name, value in answer.headers.items() if name == "Set-Cookie")
        return answer

    visitor.person.transport = listening
    visitor.enter()
    return [value for value in found if value.startswith(rooms.cookies.console_name)]


def test_behind_https_the_cookie_is_the_host_s_alone(apps: Any):
    app = apps(issuer="https://id.example")
    with app.test_request_context("https://id.example/"):
        response = app.make_response("")
        cookies = app.extensions["tokenserver"].cookies
        cookies.keep_console(response, "c" * 43)
    assert response.headers["Set-Cookie"] == f"__Host-console={'c' * 43}; Secure; HttpOnly; Path=/; SameSite=Strict"


def test_no_token_leaves_the_server(visitor_of: Callable[..., Visitor], rooms: Rooms, caplog: Any):
    visitor = visitor_of()
    urls: list[str] = []
    send = visitor.person.transport

    def listening(method: str, url: str, *rest: Any) -> Any:
        urls.append(url)
        return send(method, url, *rest)

    visitor.person.transport = listening
    with caplog.at_level("DEBUG"):
        visitor.enter()
        for path in ("/users", "/roles", "/clients", "/keys", "/log", "/stats"):
            visitor.open(path)
    said = "\n".join([*urls, *(page.text for page in visitor.seen), caplog.text])
    assert not re.search(r"eyJ[A-Za-z0-9_-]{10}|rt_[A-Za-z0-9_-]{20}", said)
    # What is in Redis opens for nobody who lacks the cookie.
    (key,) = keys_of_console(rooms)
    kept = bytes.fromhex(raw_redis(rooms.store).get(key))
    assert b"eyJ" not in kept
    assert b"rt_" not in kept


@pytest.mark.parametrize("shape", [b"[]", b"{}", b'["a", "r", "openid", 1, 2]'])
def test_tokens_of_another_version_are_none(admin: Visitor, rooms: Rooms, shape: bytes):
    cookie = next(value for name, value in cookies_of(admin.person) if name == rooms.cookies.console_name)
    (key,) = keys_of_console(rooms)
    raw_redis(rooms.store).set(key, sealing.seal(shape, rooms.keys.secrets("console"), cookie).hex())
    assert admin.enter().form_with("sign-out")


@pytest.mark.parametrize("spoilt", ["state", "iss", "code", "another browser", "again"])
def test_an_answer_that_is_not_to_this_request(
    app: Flask, rooms: Rooms, visitor_of: Callable[..., Visitor], spoilt: str
):
    visitor = visitor_of()
    person = visitor.person
    landing = person.authorize(ISSUER + HOME, CALLBACK)
    query = dict(landing.parameters)
    if spoilt in query:
        query[spoilt] = "x" * 43
    browser = Person.on(app.test_client(), ISSUER, "admin") if spoilt == "another browser" else person
    url = f"{CALLBACK}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
    page = browser.page(url)
    if spoilt == "again":
        assert page.status == 200
        page = browser.page(url)
    assert page.status in {400, 404}, page.text
    assert len(keys_of_console(rooms)) == (spoilt == "again")
    if spoilt == "again":  # it is no replay of the code, which would end what it led to
        assert 'id="sign-out"' in person.page(ISSUER + HOME).text


def test_an_id_token_of_another_request_is_none(visitor_of: Callable[..., Visitor], rooms: Rooms):
    """OpenID Connect Core section 3.1.3.7, step 11: the nonce."""
    person = visitor_of().person
    landing = person.authorize(ISSUER + HOME, CALLBACK)
    state = landing.parameters["state"]
    cookie = next(value for name, value in cookies_of(person) if name == rooms.cookies.browser_name)
    pending = rooms.interactions.find(state, cookie)
    assert pending is not None
    spoilt = pending.data | {"nonce": "of another request"}
    rooms.interactions.replace(
        type(pending)(pending.id, pending.began_at, pending.resume, pending.client_id, spoilt), cookie
    )
    page = person.page(landing.url)
    assert (page.status, "interaction_not_found" in page.text) == (404, True)


def cookies_of(person: Person) -> list[tuple[str, str]]:
    client = person.transport.__closure__[0].cell_contents  # type: ignore[attr-defined]
    return [(cookie.key, cookie.value) for cookie in client._cookies.values()]


def test_who_goes_away_from_the_sign_in(visitor_of: Callable[..., Visitor]):
    person = visitor_of().person
    page = person.page(ISSUER + HOME)
    found = person.press(page, "login-cancel")
    assert (found.status, "access_denied" in found.text) == (403, True)


def test_tokens_are_renewed_before_they_expire(admin: Visitor, rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    later = now_ms() + rooms.settings.access_token_ttl * 1000
    monkeypatch.setattr("tokenserver.pages.admin.sign_in.now_ms", lambda: later)
    before = raw_redis(rooms.store).get(keys_of_console(rooms)[0])
    admin.open("/users")
    assert raw_redis(rooms.store).get(keys_of_console(rooms)[0]) != before


def test_a_disabled_admin_is_out_at_the_next_click(visitor_of: Callable[..., Visitor], api: Api, rooms: Rooms):
    ann = api.register("ann")
    token = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    granted(api.http.put(f"/users/{ann['id']}/roles", json={"roles": ["admin"]}, headers=token))
    visitor = visitor_of("ann")
    visitor.enter()
    page = visitor.open("/roles")
    granted(api.http.put(f"/users/{ann['id']}/status", json={"status": "disabled"}, headers=token))
    # A form of hers does nothing, and the next page asks who she is.
    answer = visitor.press(page, "create-role", status=401, name="late")
    assert "Nothing was changed" in answer.text
    assert api.http.get("/roles/late", headers=token).status_code == 404
    assert visitor.person.page(ISSUER + HOME).form_with("login-submit")
    assert keys_of_console(rooms) == []


def give_roles(api: Api, user_id: str, *roles: str) -> None:
    token = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    granted(api.http.put(f"/users/{user_id}/roles", json={"roles": list(roles)}, headers=token))


def test_more_rights_hold_by_the_next_click(visitor_of: Callable[..., Visitor], api: Api, people: Any):
    visitor, ann = visitor_of("ann"), people["ann"]["id"]
    assert "go-log" not in visitor.enter().text
    for _ in range(2):
        give_roles(api, ann, "admin")
        assert "go-log" in visitor.enter().text
        # Once for each change.
        assert "go-log" in visitor.open().text
        # And fewer.
        give_roles(api, ann, "user")
        assert "go-log" not in visitor.open().text
        refresh(visitor)


def refresh(visitor: Visitor) -> None:
    """The token is renewed, with the scope that its user has now."""
    sign_in = "tokenserver.pages.admin.sign_in.EARLY"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sign_in, 10**9)
        visitor.open()


def test_a_form_is_not_lost_to_more_rights(visitor_of: Callable[..., Visitor], api: Api, people: Any, rooms: Rooms):
    visitor, ann = visitor_of("ann"), people["ann"]["id"]
    page = visitor.enter()
    give_roles(api, ann, "admin")
    visitor.press(page, "sign-out")
    assert len(events(rooms, "session:ended")) == 1


def test_the_live_log_goes_on_with_more_rights(
    visitor_of: Callable[..., Visitor], api: Api, people: Any, rooms: Rooms
):
    """Its script can't sign in again; who loads the page does."""
    visitor, ann = visitor_of("ann"), people["ann"]["id"]
    make_role(rooms, "reader", "logs:read")
    make_role(rooms, "counter", "stats:read")
    give_roles(api, ann, "reader")
    visitor.enter("/log")
    give_roles(api, ann, "reader", "counter")
    assert "<tr data-id=" in visitor.open("/log/rows").text
    assert "You are signed in" in visitor.person.page(ISSUER + HOME + "/log").text


def test_what_comes_back_without_it_is_not_asked_for_again(
    visitor_of: Callable[..., Visitor], api: Api, people: Any, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
):
    visitor, ann = visitor_of("ann"), people["ann"]["id"]
    visitor.enter()
    make_role(rooms, "reader", "logs:read")
    make_role(rooms, "counter", "stats:read")
    # As when another node, of an older version, doesn't know the permission.
    monkeypatch.setattr("tokenserver.pages.admin.sign_in.SCOPE", "openid posts:create")
    give_roles(api, ann, "reader")
    visitor.enter()
    for _ in range(2):
        page = visitor.open()
        assert page.form_with("sign-out")  # it is a page of the console, and not the way in
        assert "go-log" not in page.text
        refresh(visitor)
    monkeypatch.undo()
    give_roles(api, ann, "reader", "counter")
    assert {"go-log", "go-stats"} <= set(re.findall('id="([a-z-]+)"', visitor.enter().text))


def test_an_endpoint_that_asks_for_a_stronger_sign_in(app: Flask, admin: Visitor, people: Any):
    """RFC 9470 section 4."""
    strict = requires("users:read", acr_values=("2",), max_age=3600)(lambda **_: {})
    path = f"/users/{people['ann']['id']}"
    page = admin.open(path)
    for view in ("users.get_user", "users.put_status"):
        app.view_functions[view] = strict
    # No form is sent again by itself, and nobody goes round and round.
    for told in (admin.open(path, status=401), admin.press(page, "change-status", status=401)):
        assert "Nothing was changed" in told.text
        assert any(link.endswith("/account/security") for link in told.links)
        (again,) = (link for link in told.links if "acr_values=2" in link)
        assert "max_age=3600" in again
    asked = app.test_client().get(again)
    assert "&acr_values=2&max_age=3600" in asked.headers["Location"]


def test_out_everywhere_in_this_browser(admin: Visitor, rooms: Rooms):
    page = admin.press(admin.open(), "sign-out")
    assert "signed out" in page.text.lower()
    assert keys_of_console(rooms) == []
    assert [name for name, _ in events(rooms, "session:ended")] == ["session:ended"]
    assert admin.person.page(ISSUER + HOME).form_with("login-submit")
    assert admin.person.page(f"{ISSUER}/login").form_with("login-submit")


def test_a_store_that_is_away_is_said(apps: Any, own_redis: Any):
    app = apps(redis_url=own_redis.url())
    visitor = Visitor(Person.on(app.test_client(), ISSUER, "admin", ADMIN_PASSWORD), app)
    visitor.enter()
    own_redis.stop()
    page = visitor.open("/users", status=503)
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Retry-After"]


def test_the_client_can_not_be_changed_by_mistake(api: Api, rooms: Rooms):
    token = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    shown = granted(api.http.get(f"/clients/{ADMIN_CONSOLE}", headers=token))
    assert (shown["token_endpoint_auth_method"], shown["redirect_uris"]) == ("none", [CALLBACK])
    assert api.http.delete(f"/clients/{ADMIN_CONSOLE}", headers=token).json["code"] == "builtin_client"
    read_only = ("client_id", "client_id_issued_at", "created_at", "updated_at")
    body = {name: value for name, value in shown.items() if name not in read_only}
    for changed in ({"redirect_uris": ["https://evil.example/cb"]}, {"first_party": False}):
        answer = api.http.put(f"/clients/{ADMIN_CONSOLE}", json=body | changed, headers=token)
        assert answer.json["code"] == "builtin_client", json.dumps(answer.json)
    granted(api.http.put(f"/clients/{ADMIN_CONSOLE}", json=body | {"client_name": "Ours"}, headers=token))
