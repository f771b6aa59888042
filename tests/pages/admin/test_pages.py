"""The pages of the console: what they offer to whom, what they tell, and what they never do unasked."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import insert, select

from tests.access.story import assign, events, make_role, unassign, user_id_of
from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, Api, bearer
from tests.pages.admin.conftest import HOME, ISSUER, Visitor
from tests.pages.conftest import Elements, policy_of
from tests.person import Button, Form, Page
from tokenserver.access.models import Role
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.identity.models import User
from tokenserver.identity.second_factors.models import AuthenticatorApp, Passkey
from tokenserver.mail.models import QueuedMail
from tokenserver.pages.admin.console import SECTIONS
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id, utc_now

PATHS = ("", *(f"/{section.name}" for section in SECTIONS))
SCRIPT = "<script>alert(1)</script>"


def text_of(page: Page, element: str) -> str:
    """Of the element with this id, as it is read."""
    return " ".join(Elements(page.text).texts[element].split())


def holder(visitor_of: Callable[..., Visitor], api: Api, rooms: Rooms, *permissions: str) -> Visitor:
    """Carl, at the console, who holds these permissions."""
    carl = api.register("carl")
    make_role(rooms, "carl", *permissions)
    assign(rooms, carl["id"], "carl")
    unassign(rooms, carl["id"], "user")
    visitor = visitor_of("carl")
    visitor.enter()
    return visitor


def token_of(api: Api) -> dict[str, str]:
    return bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])


def test_every_page_is_strict(admin: Visitor):
    for path in PATHS:
        require_strict(admin, path)


def require_strict(admin: Visitor, path: str) -> None:
    page = admin.open(path)
    policy = policy_of(page)  # type: ignore[arg-type]
    is_live = path == "/log"
    assert policy["script-src"] == ("'self'" if is_live else "'none'")
    assert policy["connect-src"] == ("'self'" if is_live else "'none'")
    assert (policy["default-src"], policy["style-src"], policy["form-action"]) == ("'none'", "'self'", "'self'")
    assert page.headers["Cache-Control"] == "no-store"
    assert "Cookie" in page.headers["Vary"]
    assert not [word for word in ("<style", " style=", "javascript:", " onclick=") if word in page.text]
    assert len(re.findall("<script", page.text)) == is_live


def test_what_one_may_not_is_not_offered_and_is_refused(visitor_of: Any, api: Api, rooms: Rooms, people: Any):
    carl = holder(visitor_of, api, rooms, "users:list", "users:read")
    page = carl.open()
    assert re.findall('id="go-([a-z]+)"', page.text) == ["users"]
    ann = f"/users/{people['ann']['id']}"
    page = carl.open(ann)
    for button in ("give-role", "change-status", "remove-factors", "end-all", "mail-password"):
        assert f'id="{button}"' not in page.text
    for section in SECTIONS[1:]:
        page = carl.open(f"/{section.name}?user=ann&permission=logs:read", status=403)
        assert text_of(page, "lacks") == section.needs
        assert text_of(page, "request-id") == page.headers["X-Request-ID"]
    # Whoever sends what isn't offered is refused by the endpoint, which writes it down.
    csrf = re.findall('name="csrf" value="([^"]+)"', page.text)[0]
    for path, needs in (
        (f"{ann}/status", "users:write"),
        (f"{ann}/roles", "roles:assign"),
        (f"{ann}/sessions", "users:write"),
        ("/roles", "roles:write"),
        ("/clients", "clients:write"),
        ("/keys/rotate", "keys:write"),
    ):
        fields = {"csrf": csrf, "status": "disabled", "add": "admin", "name": "x", "kind": "service"}
        found = post(carl, path, fields)
        assert (found.status, text_of(found, "lacks")) == (403, needs), path
    denied = [details["permissions"] for name, details in events_drained(rooms) if name == "access:denied"]
    assert ["roles:assign"] in denied
    assert ["keys:write"] in denied
    assert granted(api.me(api.login("ann")["access_token"]))["roles"] == ["user"]


def events_drained(rooms: Rooms) -> list[tuple[str, dict[str, Any]]]:
    rooms.trail.drain_all()
    return events(rooms, "access:")


def post(visitor: Visitor, path: str, fields: dict[str, str]) -> Page:
    """A form that the page before need not have had."""
    page = Page(ISSUER + HOME, 200, {"Referrer-Policy": "no-referrer"}, "")
    page.forms = [Form(ISSUER + HOME + path, "POST", list(fields.items()), [], [Button("go", "", "", None)])]
    found = visitor.person.press(page, "go")
    assert isinstance(found, Page)
    return found


def test_a_form_of_another_page_does_nothing(admin: Visitor, people: Any, api: Api):
    path = f"/users/{people['ann']['id']}/status"
    found = post(admin, path, {"status": "disabled", "match": "x"})
    assert (found.status, text_of(found, "error-code")) == (403, "csrf_failed")
    found = post(admin, path, {"status": "disabled", "match": "x", "csrf": "x" * 43})
    assert (found.status, text_of(found, "error-code")) == (403, "csrf_failed")
    assert granted(api.me(api.login("ann")["access_token"]))["status"] == "active"


class TestUsers:
    def test_found_and_disabled_after_a_look_at_what_it_does(self, admin: Visitor, people: Any, api: Api):
        tokens = [api.login("ann")["access_token"] for _ in range(2)]
        page = admin.open("/users?q=AN&status=active")
        assert (">ann</a>" in page.text, ">bob</a>" in page.text) == (True, False)
        page = admin.open(f"/users/{people['ann']['id']}")
        preview = admin.press(page, "change-status")
        assert text_of(preview, "effect") == "1 person loses posts:create. 2 live sessions end."
        granted(api.me(tokens[0]))
        done = admin.press(preview, "confirm")
        assert text_of(done, "status") == "disabled"
        for token in tokens:
            refused(api.me(token), 401, "invalid_token")
        done = admin.press(admin.press(done, "change-status"), "confirm")
        assert text_of(done, "status") == "active"

    def test_in_pages(self, admin: Visitor, rooms: Rooms, people: Any):
        # Rows alone: a password is hashed for each that is registered.
        ann = rooms.people.find_any("ann")
        assert ann is not None
        names = [f"user{number:02}" for number in range(40)]
        columns = [column.key for column in User.__table__.columns if column.key != "id"]
        kept = {name: getattr(ann, name) for name in columns}

        def add(tx: Any) -> None:
            for name in names:
                own = {"username": name, "username_key": name, "email": f"{name}@x.example"}
                tx.add(User(**kept | own | {"email_key": own["email"]}))

        rooms.database.write(add)
        page = admin.open("/users?q=user")
        found = re.findall(r">(user\d\d)</a>", page.text)
        (following,) = {link for link in page.links if "cursor=" in link}
        found += re.findall(r">(user\d\d)</a>", admin.person.page(following).text)
        assert found == names

    def test_roles_are_given_and_taken(self, admin: Visitor, people: Any, api: Api, rooms: Rooms):
        page = admin.open(f"/users/{people['ann']['id']}")
        preview = admin.press(page, "give-role", add="moderator")
        assert text_of(preview, "effect") == "1 person gains posts:delete:any. 1 person gains users:read."
        page = admin.press(preview, "confirm")
        assert set(re.findall(r"\w+", text_of(page, "roles"))) >= {"moderator", "user"}
        assert rooms.rights.of(user_id_of(rooms, "ann")).roles == ("moderator", "user")
        page = admin.press(page, "give-role", status=422, add="nobody")
        assert text_of(page, "error-code") == "unknown_role"

    def test_what_changed_meanwhile_is_not_overwritten(self, admin: Visitor, people: Any, rooms: Rooms):
        page = admin.open(f"/users/{people['ann']['id']}")
        preview = admin.press(page, "give-role", add="moderator")
        make_role(rooms, "other")
        assign(rooms, people["ann"]["id"], "other")
        page = admin.press(preview, "confirm", status=412)
        assert text_of(page, "error-code") == "precondition_failed"
        assert rooms.rights.of(user_id_of(rooms, "ann")).roles == ("other", "user")

    def test_sessions_end(self, admin: Visitor, people: Any, api: Api):
        tokens = [api.login("ann")["access_token"] for _ in range(3)]
        page = admin.open(f"/users/{people['ann']['id']}")
        form = next(form for form in page.forms if "session" in form.names())
        found = post(admin, f"/users/{people['ann']['id']}/sessions", dict(form.fields))
        assert found.status == 200
        alive = [token for token in tokens if api.me(token).status_code == 200]
        assert len(alive) == 2
        preview = admin.press(found, "end-all")
        assert text_of(preview, "effect") == "2 live sessions end."
        page = admin.press(preview, "confirm")
        assert 'id="no-sessions"' in page.text
        for token in tokens:
            refused(api.me(token), 401, "invalid_token")

    def test_second_factors_and_a_forgotten_password(self, admin: Visitor, people: Any, rooms: Rooms):
        page = admin.open(f"/users/{people['ann']['id']}")
        assert text_of(admin.press(page, "remove-factors"), "effect") == "There is no second factor."
        user_id, now = user_id_of(rooms, "ann"), utc_now()
        kept: dict[str, Any] = {"public_key": b"", "sign_count": 0, "transports": [], "is_backed_up": False}
        keys = [
            Passkey(user_id=user_id, credential_id=each, name="", created_at=now, **kept) for each in (b"1", b"2")
        ]
        app = AuthenticatorApp(user_id=user_id, sealed=b"", created_at=now, confirmed_at=now, last_step=0)
        rooms.database.write(lambda tx: tx.add_all([app, *keys]))
        preview = admin.press(page, "remove-factors")
        assert text_of(preview, "effect") == (
            "The authenticator app is removed. 2 passkeys are removed. "
            "The password alone is enough to sign in from then on. Live sessions stay."
        )
        assert rooms.second_factors.has_any(user_id)
        assert "second factors are removed" in text_of(admin.press(preview, "confirm"), "done")
        assert not rooms.second_factors.has_any(user_id)
        admin.press(page, "mail-password")
        wanted = select(QueuedMail).where(QueuedMail.kind == "password_reset")
        (letter,) = rooms.database.read(lambda tx: tx.scalars(wanted).all())
        assert letter.recipient == "ann@example.org"

    def test_the_last_admin_stays(self, admin: Visitor, rooms: Rooms):
        page = admin.open(f"/users/{user_id_of(rooms)}")
        page = admin.press(page, "change-status", status=409)
        assert text_of(page, "error-code") == "last_admin"


class TestRoles:
    def test_a_role_is_made_and_given_permissions_in_the_matrix(self, admin: Visitor, people: Any, rooms: Rooms):
        admin.press(admin.open("/roles"), "create-role", name="press", description="Writes")
        for name in ("ann", "bob"):
            assign(rooms, people[name]["id"], "press")
        page = admin.open("/roles?q=press")
        assert re.findall('name="was/([^"]+)"', page.text) == ["press"]
        assert len(re.findall('type="checkbox"', page.text)) == len(PERMISSIONS)
        preview = admin.press(page, "preview", **{"r:press/posts:delete:any": "1", "r:press/logs:read": "1"})
        assert "2 people gain logs:read." in preview.text
        assert "2 people gain posts:delete:any." in preview.text
        assert rooms.rights.of(user_id_of(rooms, "ann")).permissions == {"posts:create"}
        assert text_of(admin.press(preview, "confirm"), "done").startswith("Saved")
        held = {"posts:create", "posts:delete:any", "logs:read"}
        assert rooms.rights.of(user_id_of(rooms, "ann")).permissions == held

        # What is not shown stays, and what was taken is told.
        page = admin.open("/roles?q=press&permission=posts")
        form = page.form_with("preview")
        assert form is not None
        form.fields = [field for field in form.fields if field[0] != "r:press/posts:delete:any"]
        preview = admin.press(page, "preview")
        assert "2 people lose posts:delete:any." in preview.text
        admin.press(preview, "confirm")
        assert rooms.rights.of(user_id_of(rooms, "bob")).permissions == held - {"posts:delete:any"}

    def test_nothing_changed_and_what_can_not_be(self, admin: Visitor):
        page = admin.open("/roles")
        assert "You changed nothing" in admin.press(page, "preview").text
        form = page.form_with("preview")
        assert form is not None
        form.fields = [
            field for field in form.fields if field[0] not in {"r:admin/roles:write", "r:user/posts:create"}
        ]
        preview = admin.press(page, "preview")
        assert "Nobody could manage roles any more." in preview.text
        assert re.findall('name="match/([^"]+)"', preview.text) == ["user"]

    def test_what_changed_meanwhile_is_not_overwritten(self, admin: Visitor, api: Api, rooms: Rooms):
        for name in ("one", "two"):
            make_role(rooms, name)
        page = admin.open("/roles")
        preview = admin.press(page, "preview", **{"r:one/logs:read": "1", "r:two/logs:read": "1"})
        body = {"permissions": ["keys:read"]}
        granted(api.http.put("/roles/one/permissions", json=body, headers=token_of(api)))
        page = admin.press(preview, "confirm", status=409)
        assert "precondition_failed" in page.text
        shown = {name: granted(api.http.get(f"/roles/{name}", headers=token_of(api))) for name in ("one", "two")}
        assert shown["one"]["permissions"] == ["keys:read"]
        assert shown["two"]["permissions"] == ["logs:read"]

    def test_a_role_is_deleted(self, admin: Visitor, api: Api, rooms: Rooms, people: Any):
        make_role(rooms, "a:b.c")
        page = admin.open("/roles/a:b.c")
        admin.press(admin.press(page, "delete-role"), "confirm")
        refused(api.http.get("/roles/a:b.c", headers=token_of(api)), 404, "role_not_found")
        assert "delete-role" not in admin.open("/roles/user").text
        assert text_of(admin.open("/roles/none", status=404), "error-code") == "role_not_found"

    def test_with_9000_roles(self, admin: Visitor, rooms: Rooms, queries: Any):
        with queries(admin.app) as few:
            admin.open("/roles")
        now = utc_now()
        rows = [
            {"id": new_id(), "name": f"r{n:04}", "name_key": f"r{n:04}", "created_at": now} for n in range(9000)
        ]
        filled = [row | {"description": "", "builtin": False} for row in rows]
        rooms.database.write(lambda tx: tx.execute(insert(Role), filled))
        with queries(admin.app) as many:
            page = admin.open("/roles")
        assert many.count == few.count
        assert page.text.count('name="was/') == 20
        (following,) = (link for link in page.links if "cursor=" in link)
        assert 'name="was/r0018"' in admin.person.page(following).text
        assert re.findall('name="was/([^"]+)"', admin.open("/roles?q=R8999").text) == ["r8999"]

    def test_who_may_only_look(self, visitor_of: Any, api: Api, rooms: Rooms):
        carl = holder(visitor_of, api, rooms, "roles:read")
        page = carl.open("/roles")
        assert 'type="checkbox"' not in page.text
        assert "create-role" not in page.text
        assert page.text.count('aria-label="yes"') == len(PERMISSIONS) + 5


class TestClients:
    @pytest.mark.parametrize("kind", ["web", "spa", "native", "service", "device"])
    def test_each_kind_is_made_with_safe_defaults(self, admin: Visitor, api: Api, kind: str):
        page = admin.open(f"/new-client?kind={kind}")
        uris = {"web": "https://app.example/cb", "spa": "https://app.example/", "native": "com.example.app:/cb"}
        fields = {"client_name": "Thing"} | ({"redirect_uris": uris[kind]} if kind in uris else {})
        created = admin.press(page, "create-client", status=201, **fields)
        client_id = text_of(created, "client-id")
        shown = granted(api.http.get(f"/clients/{client_id}", headers=token_of(api)))
        has_secret = kind in {"web", "service"}
        assert ('id="client-secret"' in created.text) == has_secret
        assert shown["token_endpoint_auth_method"] == ("client_secret_basic" if has_secret else "none")
        assert shown["first_party"] is False
        assert not {"implicit", "password"} & set(shown["grant_types"])
        assert "curl" in created.text
        if has_secret:
            secret = text_of(created, "client-secret")
            assert secret in unescape(created.text.partition("<pre")[2])
            assert secret not in admin.open(f"/clients/{client_id}").text

    def test_what_is_wrong_is_told_and_kept(self, admin: Visitor):
        page = admin.open("/new-client?kind=web")
        wrong = {"client_name": SCRIPT, "redirect_uris": "http://app.example/cb", "scope": "openid nothing"}
        page = admin.press(page, "create-client", status=422, **wrong)
        assert "redirect_uris.0" in text_of(page, "error")
        form = page.form_with("create-client")
        assert form is not None
        assert ("client_name", SCRIPT) in form.fields
        assert "http://app.example/cb</textarea>" in page.text
        assert SCRIPT not in page.text

    def test_changed_a_new_secret_and_gone(self, admin: Visitor, api: Api, rooms: Rooms):
        _, secret = rooms.clients.create(
            client_id="job", grant_types=["client_credentials"], scope=["posts:create"], contacts=["a@b.example"]
        )
        assert secret
        admin.press(admin.open("/clients/job/change"), "save-client", client_name="Job", scope="users:read")
        shown = granted(api.http.get("/clients/job", headers=token_of(api)))
        assert (shown["client_name"], shown["scope"], shown["contacts"]) == ("Job", "users:read", ["a@b.example"])
        page = admin.open("/clients/job")
        renewed = text_of(admin.press(admin.press(page, "rotate-secret"), "confirm"), "client-secret")
        assert api.token(("job", secret), grant_type="client_credentials").status_code == 401
        granted(api.token(("job", renewed), grant_type="client_credentials"))
        admin.press(admin.press(page, "delete-client"), "confirm")
        refused(api.http.get("/clients/job", headers=token_of(api)), 404, "client_not_found")

    def test_a_built_in_one_stays(self, admin: Visitor):
        page = admin.press(admin.open("/clients/first-party"), "delete-client", status=409)
        assert text_of(page, "error-code") == "builtin_client"


class TestKeysLogAndStatistics:
    def test_a_key_that_is_too_young_is_not_rotated(self, admin: Visitor, rooms: Rooms):
        page = admin.open("/keys")
        for entry in rooms.keys.entries():
            assert f"<code>{entry.kid}</code>" in page.text
        page = admin.press(page, "rotate", status=409)
        assert text_of(page, "error-code") == "next_key_too_young"

    def test_the_log_by_filters_without_its_own_reads(self, admin: Visitor, people: Any):
        assert "access:allowed</code>" not in admin.open("/log").text
        assert "access:allowed</code>" in admin.open("/log?reads=1").text
        page = admin.open("/log?action=user:created&outcome=success")
        assert re.findall('<td data-label="What"><code>([^<]+)', page.text) == ["user:created"] * 3
        page = admin.open("/log/rows?action=user:created")
        assert page.text.count("<tr data-id=") == 3
        assert text_of(admin.open("/log?since=yesterday", status=422), "error-code") == "validation_failed"
        assert "Nothing is found" in admin.open("/log?actor=nobody").text
        page = admin.open(
            "/log/rows?path=/auth/register&request_id=&since=2026-01-01T00:00:00Z&action=user:created"
        )
        assert page.text.count("<tr data-id=") == 2

    def test_how_far_the_log_is_vouched_for(self, admin: Visitor, rooms: Rooms):
        rooms.sealer.seal()
        assert "its signature is good" in text_of(admin.open("/log"), "seal")

    def test_statistics_are_drawn_and_written(self, admin: Visitor, people: Any):
        page = admin.open("/stats?window=1h")
        assert page.text.count('role="img"') == page.text.count("As a table") > 1
        admin.open("/roles")
        assert re.search(r'<th scope="row">roles:read</th><td class="number">\d+</td>', admin.open("/stats").text)
        assert admin.open("/stats?window=1y", status=422)


class TestExplain:
    def test_allowed_denied_and_unanswerable(self, admin: Visitor, people: Any):
        page = admin.open("/explain?user=ann&permission=posts:create")
        assert text_of(page, "decision").startswith("ann may: posts:create")
        assert "registration" in page.text
        page = admin.open("/explain?user=ann&permission=logs:read")
        assert text_of(page, "decision").startswith("ann may not: logs:read")
        assert text_of(page, "nearest").startswith("admin, which adds")
        page = admin.open("/explain?user=nobody&permission=logs:read", status=404)
        assert text_of(page, "error-code") == "user_not_found"


# Words of the console's own addresses, and what stands in others with a meaning.
NAMES = {"new", "new-client", "save", "preview", "delete", "change", "secret", "matrix", "0", "a.", "a..b", "a-_.-"}


def test_whatever_its_name_a_role_has_a_page(admin: Visitor, rooms: Rooms):
    names = {*NAMES, "a:b", "A" * 64}
    for name in names:
        make_role(rooms, name)
    links = [*admin.open("/roles").links, *admin.open(f"/roles?q={'A' * 64}").links]
    for name in names:
        page = admin.person.page(next(link for link in links if link.endswith(f"/roles/{quote(name, safe='')}")))
        assert text_of(page, "role") == name
        assert text_of(admin.press(page, "delete-role"), "whom") == name
        preview = admin.press(page, "preview", **{f"r:{name}/logs:read": "1"})
        assert f"<h2>{name}</h2>" in preview.text


def test_whatever_its_name_a_client_has_a_page(admin: Visitor, rooms: Rooms):
    names = {*NAMES, "a~b", "x" * 128}
    for name in names:
        rooms.clients.create(client_id=name, grant_types=["client_credentials"])
    links = admin.open("/clients").links
    for name in names:
        page = admin.person.page(next(link for link in links if link.endswith(f"/clients/{name}")))
        assert text_of(page, "client-id") == name
        assert text_of(admin.press(page, "rotate-secret"), "whom") == name
        assert text_of(admin.press(page, "delete-client"), "whom") == name
        form = admin.open(f"/clients/{name}/change")
        assert f"<h1>It is {name}</h1>" in admin.press(form, "save-client", client_name=f"It is {name}").text


def test_whatever_people_call_themselves_is_text(admin: Visitor, api: Api, rooms: Rooms, people: Any):
    """OWASP ASVS 1.2.1: what a user, a client, a browser or a request says is shown, and is never a page's own."""
    token = bearer(api.login("ann")["access_token"])
    granted(api.http.put("/users/me", json={"name": SCRIPT}, headers=token))
    api.http.post(
        "/auth/login", json={"login": "bob", "password": "correct horse 7 battery"}, headers={"User-Agent": SCRIPT}
    )
    make_role(rooms, "plain")
    api.http.post("/roles", json={"name": "odd", "description": SCRIPT}, headers=token_of(api))
    rooms.clients.create(client_id="odd", client_name=SCRIPT, grant_types=["client_credentials"])
    api.http.get(f"/users/{SCRIPT}", headers=token)
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    for path, is_shown in (
        ("/users", True),
        (f"/users/{people['ann']['id']}", True),
        (f"/users/{people['bob']['id']}", True),
        ("/roles/odd", True),
        ("/clients", True),
        ("/clients/odd", True),
        ("/clients/odd/change", True),
        ("/log?reads=1", True),
        ("/stats", False),
    ):
        page = admin.open(path)
        assert SCRIPT not in page.text, path
        assert (escaped in page.text) == is_shown, path
    for path in ("/users", "/roles", "/clients", "/log", "/explain", "/stats"):
        for name in ("q", "actor", "user", "permission", "path", "done", "window", "cursor"):
            page = admin.person.page(f"{ISSUER}{HOME}{path}?{name}=%22%3E{SCRIPT}")
            assert SCRIPT not in page.text, (path, name)
