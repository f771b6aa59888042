"""`/posts`: who may write, see and delete which post; contract of the list."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy
from flask import Flask
from sqlalchemy import delete, insert, select

from tests.answers import faults, granted, refused, word
from tests.conftest import ADMIN_PASSWORD, PASSWORD, bearer
from tests.posts.conftest import Caller, Callers
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.identity.models import User
from tokenserver.posts.models import Post
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG = "x" * 20_000

# For each caller: (list, create), then with the owner's public post and with the owner's private one: (read, read),
# (delete, delete).
MATRIX = {
    "guest": ((200, 401), (200, 404), (401, 401)),
    "owner": ((200, 201), (200, 200), (204, 204)),
    "other": ((200, 201), (200, 404), (403, 404)),
    "moderator": ((200, 201), (200, 404), (204, 204)),
    "admin": ((200, 201), (200, 404), (204, 204)),
    "keeper": ((200, 201), (200, 404), (204, 204)),
    "demoted": ((200, 201), (200, 404), (403, 404)),
    "disabled": ((401, 401), (401, 401), (401, 401)),
    "client": ((200, 403), (200, 404), (403, 404)),
    "clearing client": ((200, 403), (200, 404), (204, 204)),
}
CODES = {401: {"authentication_required", "invalid_token"}, 403: {"permission_denied", "user_required"}}


def caller(kind: str, callers: Callers, owner: Caller) -> Caller:
    match kind:
        case "guest":
            return callers.guest
        case "owner":
            return owner
        case "other":
            return callers.member("bob")
        case "moderator":
            return callers.member("bob", "moderator")
        case "admin":
            return callers.member("bob", "admin")
        case "keeper":
            callers.make_role("keeper", "posts:delete:any")
            return callers.member("bob", "keeper")
        case "demoted":
            member = callers.member("bob", "moderator")
            callers.unassign(member.id, "moderator")
            return member
        case "disabled":
            member = callers.member("bob", "moderator")
            callers.disable(member.id)
            return member
        case "client":
            return callers.client("posts:create")
        case _:
            return callers.client("posts:create", "posts:delete:any")


@contextmanager
def statements(app: Flask) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database inside the block, with its parameters, but for BEGIN."""
    sent: list[tuple[str, Any]] = []
    engine = rooms_of(app).database.engine

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, parameters))

    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    yield sent
    sqlalchemy.event.remove(engine, "before_cursor_execute", note)


def fields_of(response: Any) -> list[str]:
    return [error["field"] for error in refused(response, 422, "validation_failed").json["errors"]]


def walk(who: Caller, limit: int) -> list[list[dict[str, Any]]]:
    """The items of each page, from the first to the last."""
    pages, cursor = [], {}
    while cursor is not None:
        page = granted(who.list(limit=limit, **cursor))
        pages.append(page["items"])
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    return pages


@pytest.mark.parametrize("kind", MATRIX)
def test_every_caller(kind: str, callers: Callers):
    owner = callers.member("ann")
    public = granted(owner.create(public=True), 201)["id"]
    private = granted(owner.create(public=False), 201)["id"]
    who = caller(kind, callers, owner)
    (lists, writes), reads, deletes = MATRIX[kind]

    answers = [(who.list(), lists), (who.create(), writes)]
    answers += [(who.read(post), status) for post, status in zip((public, private), reads, strict=True)]
    answers += [(who.delete(post), status) for post, status in zip((public, private), deletes, strict=True)]

    for response, status in answers:
        if status == 404:
            refused(response, 404, "post_not_found")
        elif status in CODES:
            assert (response.status_code, word(response) in CODES[status]) == (status, True), response.text
            assert not faults(response)
        else:
            granted(response, status)
    seen = {post["id"] for post in granted(owner.list())["items"]}
    for post, status in zip((public, private), deletes, strict=True):
        assert (post in seen) == (status != 204)


class TestCreate:
    def test_answer(self, callers: Callers):
        ann = callers.member("ann")
        before = datetime.now(UTC)
        post = granted(ann.create(title="Ünï 安 😀", body="One\r\n\ttwo\n"), 201)
        assert UUID(post.pop("id"))
        at = datetime.fromisoformat(post.pop("created_at"))
        assert before <= at <= datetime.now(UTC)
        assert at.utcoffset() == timedelta(0)
        assert post == {
            "title": "Ünï 安 😀",
            "body": "One\r\n\ttwo\n",
            "public": True,
            "author": {"id": ann.id, "username": "ann"},
        }

    def test_what_is_answered_is_what_is_read(self, callers: Callers):
        ann = callers.member("ann")
        for public in (True, False):
            post = granted(ann.create(public=public), 201)
            assert post["public"] is public
            assert granted(ann.read(post["id"])) == post
            assert granted(ann.list())["items"][0] == post

    def test_markup_is_data(self, callers: Callers):
        """OWASP ASVS 3.2.1: what a browser could take for a page is never sent as one."""
        texts = {
            "title": "<script>alert(1)</script>",
            "body": "\"><img src=x onerror=alert('1')>&amp;{{7*7}}\n</pre>",
        }
        post = granted(callers.member("ann").create(**texts), 201)
        for response in (callers.guest.read(post["id"]), callers.guest.ask("GET", "/posts")):
            body = granted(response)
            assert {key: body.get("items", [body])[0][key] for key in texts} == texts
            assert response.content_type == "application/json"
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_largest(self, callers: Callers):
        ann = callers.member("ann")
        for title, body in (("x" * 200, LONG), ("😀" * 200, "\t" * 20_000), (" x ", " ")):
            post = granted(ann.create(title=title, body=body), 201)
            assert (post["title"], post["body"]) == (title, body)

    def test_wrong_fields(self, callers: Callers):
        ann = callers.member("ann")
        for field, value in (
            *(("title", value) for value in ("", " ", "\u3000 ", "a\n", "x" * 201, None, 1, ["x"], {})),
            *(("title", f"a{c}b") for c in "\n\r\t\x01\x1b\x7f\x85\u2028\u2029"),
            *(("body", value) for value in ("", LONG + "x", None, 1, [])),
            *(("body", f"a{c}b") for c in "\x01\x08\x0b\x0c\x1b\x7f\x85\x9f"),
            *(("public", value) for value in (None, 0, 1, "true", "yes", "", [])),
        ):
            assert fields_of(ann.create(**{field: value})) == [field], (field, value)
        for field in ("title", "body"):
            body = {"title": "t", "body": "b"}
            del body[field]
            assert fields_of(ann.ask("POST", "/posts", json=body)) == [field]
        assert granted(ann.list())["items"] == []

    def test_nobody_writes_for_somebody_else(self, callers: Callers):
        """Mass assignment, OWASP ASVS 8.2.3."""
        ann, bob = callers.member("ann"), callers.member("bob")
        for field, value in (
            ("author", {"id": bob.id}),
            ("author_id", bob.id),
            ("user_id", bob.id),
            ("id", str(uuid4())),
            ("created_at", "2020-01-01T00:00:00+00:00"),
            ("Title", "x"),
        ):
            assert fields_of(ann.create(**{field: value})) == [field]

    def test_without_the_permission(self, callers: Callers):
        ann = callers.member("ann")
        callers.unassign(ann.id, "user")
        refused(ann.create(), 403, "permission_denied")

    def test_client_without_the_scope(self, callers: Callers):
        refused(callers.client("users:read").create(), 403, "insufficient_scope")

    def test_author_removed_meanwhile(self, callers: Callers, rooms: Rooms):
        """Between the look at the token and the write: the foreign key says so, and nothing else happens."""
        ann = callers.member("ann")
        kept = granted(ann.create(), 201)["id"]
        rooms.database.write(lambda tx: tx.execute(delete(User).where(User.id == UUID(ann.id))))
        refused(ann.create(title="too late"), 401, "invalid_token")
        refused(callers.guest.read(kept), 404, "post_not_found")
        assert rooms.database.read(lambda tx: tx.scalars(select(Post)).all()) == []
        assert len(events(rooms)) == 1


class TestRead:
    def test_unknown_and_hidden_are_the_same(self, callers: Callers):
        """Nobody learns that a private post exists: not the moderator, not the admin, not a guest."""
        hidden = granted(callers.member("ann").create(public=False), 201)["id"]
        admin = Caller(callers.guest.api, callers.guest.api.login("admin", ADMIN_PASSWORD)["access_token"])
        for who in (callers.guest, callers.member("bob"), callers.member("mod", "moderator"), admin):
            answers = []
            for post_id in (hidden, str(uuid4())):
                response = refused(who.read(post_id), 404, "post_not_found")
                headers = {k: v for k, v in response.headers if k != "X-Request-ID"}
                text = response.text.replace(post_id, "ID").replace(response.headers["X-Request-ID"], "REQUEST")
                answers.append((headers, text))
            assert answers[0] == answers[1]

    def test_malformed_id(self, callers: Callers):
        ann = callers.member("ann")
        for post_id in ("1", "None", str(uuid4())[:-1], str(uuid4()) + "0", uuid4().hex, "%27", "..%2Fusers"):
            for who in (callers.guest, ann):
                refused(who.read(post_id), 404, "not_found")
                refused(who.delete(post_id), 404, "not_found")

    def test_bad_token_is_no_guest(self, callers: Callers):
        post = granted(callers.member("ann").create(), 201)["id"]
        forged = Caller(callers.guest.api, "forged")
        refused(forged.read(post), 401, "invalid_token")
        refused(forged.list(), 401, "invalid_token")

    def test_caches_keep_guests_and_users_apart(self, callers: Callers):
        """RFC 9111 section 4.1."""
        post = granted(callers.member("ann").create(), 201)["id"]
        for response in (callers.guest.read(post), callers.guest.list()):
            assert "Authorization" in response.vary


class TestList:
    def test_newest_first_and_only_what_is_for_the_viewer(
        self, callers: Callers, stored: Callable[..., list[Post]]
    ):
        ann, bob = callers.member("ann"), callers.member("bob")
        posts = stored(
            *(
                (author.id, public, NOON + timedelta(seconds=second))
                for second, (author, public) in enumerate(
                    [(ann, True), (ann, False), (bob, True), (bob, False), (ann, True), (bob, False), (ann, False)]
                )
            )
        )
        for who, wanted in (
            (callers.guest, (4, 2, 0)),
            (ann, (6, 4, 2, 1, 0)),
            (bob, (5, 4, 3, 2, 0)),
            (callers.member("mod", "moderator"), (4, 2, 0)),
            (callers.member("boss", "admin"), (4, 2, 0)),
            (callers.client("posts:delete:any"), (4, 2, 0)),
        ):
            page = granted(who.list())
            assert [post["id"] for post in page["items"]] == [str(posts[i].id) for i in wanted]
            assert page["next_cursor"] is None

    def test_empty(self, callers: Callers):
        for who in (callers.guest, callers.member("ann")):
            assert granted(who.list()) == {"items": [], "next_cursor": None}

    def test_authors_of_today(self, callers: Callers):
        ann, bob = callers.member("ann"), callers.member("bob")
        for who in (ann, bob):
            granted(who.create(), 201)
        body = {"username": "anna", "current_password": PASSWORD}
        granted(ann.ask("PUT", "/users/me", json=body))
        authors = [post["author"] for post in granted(callers.guest.list())["items"]]
        assert authors == [{"id": bob.id, "username": "bob"}, {"id": ann.id, "username": "anna"}]

    def test_pages_over_one_moment(self, callers: Callers, stored: Callable[..., list[Post]]):
        """45 posts of one moment: each comes once, in one order."""
        ann, bob = callers.member("ann"), callers.member("bob")
        kinds = [(ann.id, True), (ann.id, False), (bob.id, True)] * 15
        posts = stored(*((author, public, NOON) for author, public in kinds))
        stored((bob.id, False, NOON))
        for who, visible in ((ann, posts), (callers.guest, [post for post in posts if post.public])):
            wanted = [str(id_) for id_ in sorted((post.id for post in visible), reverse=True)]
            for limit in (4, 10, len(wanted) - 1, len(wanted), len(wanted) + 1):
                pages = walk(who, limit)
                assert [post["id"] for page in pages for post in page] == wanted
                assert [len(page) for page in pages[:-1]] == [limit] * ((len(wanted) - 1) // limit)

    def test_what_comes_and_goes_moves_no_page(self, callers: Callers, stored: Callable[..., list[Post]]):
        ann = callers.member("ann")
        posts = stored(*((ann.id, True, NOON - timedelta(seconds=i)) for i in range(6)))
        first = granted(ann.list(limit=3))
        stored((ann.id, True, NOON + timedelta(seconds=1)))
        granted(ann.delete(str(posts[2].id)), 204)  # the one that the cursor stands on
        rest = granted(ann.list(limit=3, cursor=first["next_cursor"]))
        assert [post["id"] for post in rest["items"]] == [str(post.id) for post in posts[3:]]
        assert rest["next_cursor"] is None

    def test_cursor_of_another_viewer(self, callers: Callers, stored: Callable[..., list[Post]]):
        ann, bob = callers.member("ann"), callers.member("bob")
        stored(*((ann.id, True, NOON) for _ in range(3)))
        callers.guest.api.login("ann")
        viewers = {"guest": callers.guest, "ann": ann, "bob": bob}
        cursors = {name: granted(who.list(limit=1))["next_cursor"] for name, who in viewers.items()}
        for name, who in viewers.items():
            for of, cursor in cursors.items():
                if of == name:
                    granted(who.list(cursor=cursor))
                else:
                    assert fields_of(who.list(cursor=cursor)) == ["cursor"]
        sessions = granted(ann.ask("GET", "/users/me/sessions?limit=1"))["next_cursor"]
        assert fields_of(ann.list(cursor=sessions)) == ["cursor"]
        assert fields_of(ann.ask("GET", f"/users/me/sessions?cursor={cursors['ann']}")) == ["cursor"]

    def test_forged_cursor(self, callers: Callers, stored: Callable[..., list[Post]]):
        ann = callers.member("ann")
        stored(*((ann.id, True, NOON) for _ in range(3)))
        cursor = granted(callers.guest.list(limit=1))["next_cursor"]
        raw = urlsafe_b64decode(cursor + "==")
        forged = [raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :] for i in range(len(raw))]
        forged += [raw[:16], raw[16:], raw[:-1], raw + b" ", bytes(16) + raw[16:], bytes(16) + b"[]"]
        for bad in [urlsafe_b64encode(each).rstrip(b"=").decode() for each in forged] + [
            "",
            "x",
            "é",
            "[]",
            "=" * 9,
        ]:
            assert fields_of(callers.guest.list(cursor=bad)) == ["cursor"], bad
        granted(callers.guest.list(limit=1, cursor=cursor))

    def test_limit(self, callers: Callers, stored: Callable[..., list[Post]]):
        ann = callers.member("ann")
        stored(*((ann.id, True, NOON) for _ in range(101)))
        for query, wanted in (({}, 20), ({"limit": 1}, 1), ({"limit": 100}, 100)):
            assert len(granted(callers.guest.list(**query))["items"]) == wanted
        for limit in ("0", "101", "-1", "x", "1.0", ""):
            assert fields_of(callers.guest.list(limit=limit)) == ["limit"]
        assert fields_of(callers.guest.list(author=ann.id)) == ["author"]

    def test_one_statement_a_page(self, app: Flask, callers: Callers, stored: Callable[..., list[Post]]):
        ann, bob = callers.member("ann"), callers.member("bob")
        stored(*((who.id, public, NOON) for who in (ann, bob) for public in (True, False) for _ in range(25)))
        for who in (callers.guest, ann):
            granted(who.list())
            for limit in (1, 40):
                with statements(app) as sent:
                    page = granted(who.list(limit=limit))
                assert len(page["items"]) == limit
                assert len(sent) == 1


class TestPlan:
    """Pages of a long list, first and deep, cost the same. Somebody who writes most of what is public, or many
    private ones, must not make the walk of another index long."""

    COUNT = 6_000

    @pytest.fixture
    def page(self, app: Flask, callers: Callers, rooms: Rooms) -> Callable[..., tuple[str, Any]]:
        """The statement behind a page of ten."""
        ann, bob, eve = (callers.member(name) for name in ("ann", "bob", "eve"))

        def kind(i: int) -> tuple[Caller, bool]:
            third = self.COUNT // 3
            return ((ann, True), (bob, False), (eve, i % 2 == 0))[i // third]

        rows = [
            {
                "id": new_id(),
                "author_id": UUID(kind(i)[0].id),
                "title": "t",
                "body": "b",
                "public": kind(i)[1],
                "created_at": NOON - timedelta(seconds=i),
            }
            for i in range(self.COUNT)
        ]
        rooms.database.write(lambda tx: tx.execute(insert(Post), rows))
        with rooms.database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        viewers = {"guest": callers.guest, "ann": ann, "bob": bob}

        def page(viewer: str, *, deep: bool) -> tuple[str, Any]:
            who, cursor = viewers[viewer], {}
            for _ in range(20 if deep else 0):
                cursor = {"cursor": granted(who.list(limit=100, **cursor))["next_cursor"]}
            with statements(app) as sent:
                granted(who.list(limit=10, **cursor))
            return sent[-1]

        return page

    @pytest.mark.parametrize("backend", ["postgresql"])
    def test_rows_that_postgresql_reads(self, rooms: Rooms, page: Callable[..., tuple[str, Any]]):
        for viewer, walks in (("guest", 1), ("ann", 2), ("bob", 2)):
            for deep in (False, True):
                statement, parameters = page(viewer, deep=deep)
                with rooms.database.engine.connect() as connection:
                    explain = "EXPLAIN (ANALYZE, FORMAT JSON) "
                    [[plan]] = connection.exec_driver_sql(explain + statement, parameters).scalars()
                assert rows_read(plan["Plan"], "posts") <= walks * 11, json.dumps(plan, indent=1)

    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_indexes_that_sqlite_walks(self, rooms: Rooms, page: Callable[..., tuple[str, Any]]):
        for viewer, columns in (("guest", ["public"]), ("ann", ["public", "author_id"])):
            for deep in (False, True):
                statement, parameters = page(viewer, deep=deep)
                with rooms.database.engine.connect() as connection:
                    explain = "EXPLAIN QUERY PLAN "
                    plan = [row[-1] for row in connection.exec_driver_sql(explain + statement, parameters)]
                where = " AND (created_at,id)<(?,?)" if deep else ""
                walks = [
                    f"SEARCH posts USING INDEX ix_posts_{column}_created_at_id ({column}=?{where})"
                    for column in columns
                ]
                assert [step for step in plan if " posts " in step] == walks


def rows_read(node: dict[str, Any], table: str) -> int:
    read = 0
    if node.get("Relation Name") == table:
        filtered = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        read = int((node["Actual Rows"] + filtered) * node["Actual Loops"])
    return read + sum(rows_read(child, table) for child in node.get("Plans", []))


class TestDelete:
    def test_gone_for_good(self, callers: Callers):
        ann = callers.member("ann")
        for public in (True, False):
            post = granted(ann.create(public=public), 201)["id"]
            assert ann.delete(post).data == b""
            refused(ann.delete(post), 404, "post_not_found")
            refused(ann.read(post), 404, "post_not_found")
        assert granted(ann.list())["items"] == []

    def test_refusal_deletes_nothing_and_hides_the_hidden(self, callers: Callers):
        ann, bob = callers.member("ann"), callers.member("bob")
        public, private = (granted(ann.create(public=public), 201) for public in (True, False))
        answers = []
        for post_id in (private["id"], str(uuid4())):
            response = refused(bob.delete(post_id), 404, "post_not_found")
            answers.append(response.text.replace(post_id, "").replace(response.headers["X-Request-ID"], ""))
        assert answers[0] == answers[1]
        refused(bob.delete(public["id"]), 403, "permission_denied")
        refused(callers.guest.delete(public["id"]), 401, "authentication_required")
        assert granted(ann.list())["items"] == [private, public]

    def test_token_that_does_not_cover_the_permission(self, callers: Callers, confidential: tuple[str, str]):
        """What is needed is both: the moderator holds it, the token isn't for it."""
        ann, moderator = callers.member("ann"), callers.member("bob", "moderator")
        public, private = (granted(ann.create(public=public), 201)["id"] for public in (True, False))
        own = granted(moderator.create(), 201)["id"]
        form = {"grant_type": "password", "username": "bob", "password": PASSWORD, "scope": "posts:create"}
        narrow = Caller(moderator.api, granted(moderator.api.token(confidential, **form))["access_token"])
        refused(narrow.delete(public), 403, "permission_denied")
        refused(narrow.delete(private), 404, "post_not_found")
        granted(narrow.delete(own), 204)
        granted(moderator.delete(public), 204)

    def test_at_once(self, app: Flask, callers: Callers):
        """One of eight deletes it; the others find nothing."""
        ann = callers.member("ann")
        for _ in range(3):
            post = granted(ann.create(), 201)["id"]
            start = Barrier(8)

            def attempt(_: int, post: str = post, start: Barrier = start) -> int:
                http = app.test_client()
                start.wait()
                return http.delete(f"/posts/{post}", headers=bearer(str(ann.token))).status_code

            with ThreadPoolExecutor(8) as pool:
                assert sorted(pool.map(attempt, range(8))) == [204] + [404] * 7
        assert [event.event for event in events(rooms_of(app))].count("post:deleted") == 3


def events(rooms: Rooms) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.event.startswith("post:")).order_by(AuditEvent.at)
    return list(rooms.database.read(lambda tx: tx.scalars(query).all()))


def test_events_tell_who_and_what_but_not_the_text(callers: Callers, rooms: Rooms, confidential: tuple[str, str]):
    ann, moderator = callers.member("ann"), callers.member("bob", "moderator")
    texts = {"title": "unspeakable title", "body": "unspeakable body"}
    public = granted(ann.create(**texts), 201)["id"]
    private = granted(ann.create(**texts, public=False), 201)["id"]
    granted(moderator.delete(private), 204)
    granted(ann.delete(public), 204)
    refused(ann.delete(public), 404, "post_not_found")
    refused(ann.create(**texts, author_id=ann.id), 422, "validation_failed")
    found = [(event.event, event.actor, event.target, event.details) for event in events(rooms)]
    assert found == [
        ("post:created", ann.id, public, {"public": True}),
        ("post:created", ann.id, private, {"public": False}),
        ("post:deleted", moderator.id, private, {"author": ann.id, "public": False}),
        ("post:deleted", ann.id, public, {"author": ann.id, "public": True}),
    ]
    columns = [column for event in events(rooms) for column in vars(event).values()]
    assert "unspeakable" not in str(columns)
