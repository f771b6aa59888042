"""The console for somebody whose browser asks for German."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert

from tests.access.story import assign, make_role
from tests.conftest import ADMIN_PASSWORD, Api
from tests.pages.admin.conftest import HOME, ISSUER, Visitor
from tests.pages.conftest import Elements
from tests.person import Page, Person
from tokenserver.access.models import Role
from tokenserver.pages.admin.effect import Sessions, sentences
from tokenserver.pages.admin.kinds import KINDS
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id, utc_now

# Not read: scripts, styles, and what programs are told.
UNREAD = re.compile(r"<(script|style|code|pre|tspan)\b.*?</\1>", re.DOTALL)
# Read in both languages: names of things, and words that German has too.
BOTH = re.compile(
    r"\S*[_:/\d@\[]\S+|admin(-console)?|first-party|ann|bob|[Jj]ob|plain|user|moderator|GET|UTC|EdDSA"
    r"|Name|Status|Scope|Secret"
)
CLIENTS = {"Admin console", "This server's own sign-in"}
WORDS = re.compile(r"[^\W\d_]{2,}")


@pytest.fixture
def visitors(app: Flask) -> Callable[[str], Visitor]:
    def made(language: str) -> Visitor:
        client = app.test_client()
        client.environ_base["HTTP_ACCEPT_LANGUAGE"] = language
        visitor = Visitor(Person.on(client, ISSUER, "admin", ADMIN_PASSWORD), app)
        page = visitor.person.page(ISSUER + HOME)
        page = visitor.person.press(page, "login-submit")  # type: ignore[assignment]
        visitor.person.page(page.links[0])
        return visitor

    return made


@pytest.fixture
def german(visitors: Callable[[str], Visitor]) -> Visitor:
    return visitors("de-AT, en;q=0.5")


def read(page: Page) -> set[str]:
    """What is shown, told of pictures and said aloud."""
    text = UNREAD.sub("", page.text)
    said = re.findall(r'(?:aria-label|title|alt|data-label|data-failure)="([^"]*)"', text)
    return {unescape(each).strip() for each in (*re.split(r"<[^>]*>", text), *said) if WORDS.search(each)}


def test_nothing_on_any_page_is_left_in_english(visitors: Any, people: Any, rooms: Rooms):
    rooms.clients.create(client_id="job", client_name="Job", grant_types=["client_credentials"])
    make_role(rooms, "plain")
    english, german = visitors("en"), visitors("de")
    ann = f"/users/{people['ann']['id']}"
    paths = (
        *("", "/users", ann, "/users?q=nobody", "/roles", "/roles/admin", "/roles/plain", "/keys", "/clients"),
        *("/new-client", *(f"/new-client?kind={kind}" for kind in KINDS), "/clients/job", "/clients/job/change"),
        *("/log?reads=1", "/stats?window=1h", "/explain", "/explain?user=ann&permission=posts:create"),
        "/explain?user=ann&permission=logs:read",
    )
    for path in paths:
        pages = english.open(path), german.open(path)
        assert '<html lang="de">' in pages[1].text
        same = set.intersection(*map(read, pages)) - (CLIENTS if path == "/clients" else set())
        assert {text for text in same if WORDS.search(BOTH.sub("", text))} == set(), path


REFUSED: list[tuple[str, str, dict[str, str], int, str]] = [
    ("/roles", "create-role", {"name": "!"}, 422, "1 bis 64 Buchstaben"),
    ("/roles", "create-role", {"name": "Verify"}, 422, "nicht `verify`"),
    ("/roles", "create-role", {"name": "user"}, 409, "Es gibt schon eine Rolle"),
    ("/new-client?kind=web", "create-client", {"redirect_uris": "http://a.example/"}, 422, "https, außer für"),
    ("/new-client?kind=web", "create-client", {"redirect_uris": "app.example:/ app.example:/"}, 422, "Jede nur"),
    ("/new-client?kind=web", "create-client", {"redirect_uris": "app.example:/"}, 422, "Ein eigenes Schema"),
    ("/new-client?kind=web", "create-client", {"redirect_uris": "//x"}, 422, "Eine absolute URI"),
    ("/new-client?kind=web", "create-client", {"redirect_uris": f"https://a/{'x' * 2000}"}, 422, "Höchstens 2000"),
    ("/new-client?kind=web", "create-client", {"client_name": "\u200b"}, 422, "Eine Zeile mit höchstens 255"),
    ("/new-client?kind=web", "create-client", {}, 422, "Für authorization_code und implicit"),
    ("/new-client?kind=service", "create-client", {"scope": "x"}, 422, "Enthält einen Scope"),
    ("/clients/first-party", "delete-client", {}, 409, "Die eingebaute Anwendung"),
    ("/keys", "rotate", {}, 409, "kennt den nächsten Schlüssel vielleicht noch nicht. Er ist bereit ab <time"),
]


def test_what_is_refused_is_told_in_german(german: Visitor):
    for path, button, fields, status, told in REFUSED:
        page = german.press(german.open(path), button, status=status, **fields)
        assert told in unescape(page.text)
        assert 'lang="en"' not in page.text, fields


MISSING = [
    ("/roles/none", 404, "Diese Rolle gibt es nicht."),
    ("/clients/none", 404, "Diese Anwendung gibt es nicht."),
    (f"/users/{new_id()}", 404, "Dieses Konto gibt es nicht."),
    ("/explain?user=ann&permission=x", 422, "Diese Berechtigung gibt es nicht."),
    ("/explain?user=admin&permission=posts:delete:any&resource=/posts/1", 422, "der Form /posts/{id}"),
    ("/log?since=yesterday", 422, "Kein gültiger Zeitpunkt"),
]


def test_what_is_not_there_is_told_in_german(german: Visitor, people: Any):
    for path, status, told in MISSING:
        page = german.open(path, status=status)
        assert told in page.text
        assert 'lang="en"' not in page.text, path
    # What has no translation is said to be English (WCAG 2.2, success criterion 3.1.2).
    page = german.open("/stats?window=1y", status=422)
    assert re.search(r'<code>window</code>: <span lang="en">Must be one of[^<]+</span>', page.text)


def test_one_and_many(german: Visitor, people: Any, rooms: Rooms, app: Flask):
    make_role(rooms, "press", "logs:read")
    page = german.press(german.open(f"/users/{people['ann']['id']}"), "give-role", add="press")
    assert Elements(page.text).texts["effect"].split("\n")[1] == "1 Person erhält logs:read."
    assert "Rolle press geben" in page.text
    for name in ("ann", "bob"):
        assign(rooms, people[name]["id"], "press")
    page = german.press(german.open("/roles?q=press"), "preview", **{"r:press/keys:read": "1"})
    assert "2 Personen erhalten keys:read." in page.text


@pytest.mark.parametrize(
    ("language", "told"),
    [
        (
            "de",
            [
                "Mindestens 1 Person verliert logs:read.",
                "Die Anwendung {x} verliert logs:read.",
                "1.234 aktive Sitzungen enden.",
            ],
        ),
        (
            "en",
            [
                "At least 1 person loses logs:read.",
                "The client {x} loses logs:read.",
                "1,234 live sessions end.",
            ],
        ),
    ],
)
def test_more_than_were_looked_at_one_by_one(app: Flask, language: str, told: list[str]):
    held = {"loses": ["logs:read"], "gains": []}
    effect = {"users": [held], "user_count": 1500, "clients": [{"client_id": "{x}", **held}], "session_count": 1234}
    with app.test_request_context(headers={"Accept-Language": language}):
        assert sentences(effect, Sessions.END) == told


def test_numbers_and_moments(german: Visitor, visitors: Any, rooms: Rooms, people: Any):
    now = utc_now()
    rows = [{"id": new_id(), "name": f"r{n}", "name_key": f"r{n}", "created_at": now} for n in range(1000)]
    filled = [row | {"description": "", "builtin": False} for row in rows]
    rooms.database.write(lambda tx: tx.execute(insert(Role), filled))
    moment = r'<time datetime="\d{4}-\d\d-\d\dT\d\d:\d\dZ">%s</time>'
    assert "<dd>1.003</dd>" in (page := german.open("/stats")).text
    assert re.search(moment % r"\d\d\.\d\d\.\d{4} \d\d:\d\d", page.text)
    assert re.search(moment % r"\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d", german.open("/log").text)
    english = visitors("en")
    assert "<dd>1,003</dd>" in english.open("/stats").text
    assert re.search(moment % r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", english.open("/log").text)


def test_an_address_may_name_the_language_for_the_sign_in_too(app: Flask):
    """OIDC Core section 3.1.2.1."""
    person = Person.on(app.test_client(), ISSUER, "admin", ADMIN_PASSWORD)
    page = person.page(f"{ISSUER}{HOME}/users?ui_locales=fr+de-CH")
    assert '<html lang="de">' in page.text
    page = person.press(page, "login-submit")  # type: ignore[assignment]
    page = person.page(page.links[0])
    assert "<h1>Benutzer</h1>" in page.text
    assert "<h1>Users</h1>" in person.page(f"{ISSUER}{HOME}/users").text


def test_a_mail_is_in_the_language_of_the_console(german: Visitor, people: Any, rooms: Rooms, api: Api):
    german.press(german.open(f"/users/{people['ann']['id']}"), "mail-password")
    from tests.pages.test_language import letters

    assert "Neues Passwort festlegen" in {letter.subject for letter in letters(german.app) if letter}
