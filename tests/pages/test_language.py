"""Pages and mails in the language of who reads them; REST and OAuth in English."""

import re
from string import Formatter
from typing import Any

import pytest

from tests import catalogue
from tests.conftest import Api, Apps, bearer
from tests.pages.conftest import Browser, Elements, shown
from tokenserver.app import rooms_of
from tokenserver.identity.notices import device_of
from tokenserver.mail.models import Kind, QueuedMail
from tokenserver.web import language
from tokenserver.web.language import LANGUAGES, SOURCE

GERMAN = {"Accept-Language": "de-AT, de;q=0.9, en;q=0.5"}
OTHERS = [each for each in LANGUAGES if each != SOURCE]
PERCENT = re.compile(r"%\(\w+\)s")
STALE = "run `make catalogue`, and translate what is new"
# What isn't read, or is in the catalogue: comments, blocks for translation, words of classes, scripts, expressions.
OURS = re.compile(
    r"{#.*?#}|{% trans.*?endtrans %}|{% block shape %}.*?{% endblock %}|<script.*?</script>|{{.*?}}|{%.*?%}",
    re.DOTALL,
)
TAG = re.compile(r"<[^>]+>")


# The catalogue


def pairs(catalog: Any) -> list[tuple[str, str]]:
    found = []
    for message in catalog:
        if message.id:
            ids = message.id if isinstance(message.id, tuple) else (message.id,)
            texts = message.string if isinstance(message.string, tuple) else (message.string,)
            found += zip((*ids, *ids[-1:] * (len(texts) - len(ids))), texts, strict=True)
    return found


@pytest.mark.parametrize("name", OTHERS)
def test_a_catalogue_is_in_step_with_the_sources(name: str):
    path = catalogue.path_of(name)
    assert path.read_bytes() == catalogue.written(catalogue.merged(name)), STALE
    known = language._catalogue(name)
    for message in catalogue.read(name):
        if isinstance(message.id, tuple):
            assert tuple(known.ngettext(*message.id, count) for count in (1, 2)) == tuple(message.string), STALE
        elif message.id:
            assert known.gettext(message.id) == message.string, STALE


@pytest.mark.parametrize("name", OTHERS)
def test_everything_is_translated_with_all_that_is_filled_in(name: str):
    def filled_in(text: str) -> tuple[Any, ...]:
        fields = sorted(field for _, field, _, _ in Formatter().parse(text) if field) if "{" in text else []
        return fields, sorted(PERCENT.findall(text)), sorted(TAG.findall(text))

    for message in catalogue.read(name):
        assert not message.fuzzy or not message.id
    for source, text in pairs(catalogue.read(name)):
        assert text.strip(), source
        assert filled_in(source) == filled_in(text)
        assert (source[-1:] == "\n") == (text[-1:] == "\n"), source


def test_no_template_says_anything_outside_the_catalogue():
    """Between tags, and in what is read aloud."""
    for path in (catalogue.ROOT / "pages" / "templates").rglob("*.html"):
        text = OURS.sub("", path.read_text(encoding="utf-8"))
        left = re.sub(r"<[^>]*>", " ", text).split()
        assert not [word for word in left if any(map(str.isalpha, word))], path.name
        assert not re.findall(r'(?:alt|title|aria-label|placeholder|data-label)="\w', text), path.name


# Which one


@pytest.mark.parametrize(
    ("header", "spoken"),
    [
        ("de", "de"),
        ("DE-ch", "de"),
        ("fr, de;q=0.3", "de"),
        ("en-GB, de;q=0.9", "en"),
        ("de;q=0, en", "en"),
        ("fr", "en"),
        ("", "en"),
        ("*", "en"),
        ("\"';<script>, de", "en"),
    ],
)
def test_the_browser_s_language(client: Any, header: str, spoken: str):
    page = client.get("/login", headers={"Accept-Language": header})
    assert f'<html lang="{spoken}">' in page.text
    assert page.headers["Content-Language"] == spoken
    assert {"Accept-Language", "Cookie"} <= set(page.vary)
    assert ("Anmelden" in page.text) == (spoken == "de")


def test_ui_locales_come_first_until_the_client_has_its_answer(browser: Browser):
    """OIDC Core section 3.1.2.1."""
    interaction = browser.begin(ui_locales="fr-CA de-DE en", scope="openid posts:create")
    page = browser.http.get(f"/login?interaction={interaction.id}", headers={"Accept-Language": "en"})
    assert '<html lang="de">' in page.text
    wrong = browser.send(page, username="ann", password="wrong")
    assert Elements(wrong.text).texts["error-sentence"] == "Der Benutzername oder das Passwort ist falsch."
    assert "<title>Fehler: Anmelden</title>" in wrong.text
    browser.sign_in(interaction)
    consent = browser.http.get(f"/consent?interaction={interaction.id}")
    assert "Beiträge schreiben" in shown(consent).texts["consent-scopes"]
    assert '<html lang="en">' in browser.http.get("/account").text


@pytest.mark.parametrize("asked", ["fr", "", "tlh-Latn x", "<b>"])
def test_ui_locales_that_nobody_speaks_are_no_fault(browser: Browser, asked: str):
    interaction = browser.begin(ui_locales=asked)
    page = browser.http.get(f"/login?interaction={interaction.id}", headers=GERMAN)
    assert '<html lang="de">' in page.text


def test_the_metadata_names_them(client: Any):
    for name in ("openid-configuration", "oauth-authorization-server"):
        assert client.get(f"/.well-known/{name}").json["ui_locales_supported"] == list(LANGUAGES)


def test_an_address_may_name_the_language_of_its_error(client: Any):
    """What is told to developers stays English, and says so to who has it read aloud (WCAG 2.2, 3.1.2)."""
    page = client.get("/oauth/authorize?client_id=nobody&ui_locales=de", headers={"Accept": "text/html"})
    assert '<html lang="de">' in page.text
    assert Elements(page.text).ids["error-sentence"]["lang"] == "en"
    page = client.get("/login?interaction=unknown", headers=GERMAN)
    assert "lang" not in Elements(page.text).ids["error-sentence"]


def test_programs_are_answered_in_english(api: Api):
    for path in ("/users/me", "/nowhere"):
        answer = api.http.get(path, headers=GERMAN | bearer("nothing"))
        assert "Content-Language" not in answer.headers
        assert answer.json["title"] in {"Unauthorized", "Not Found"}
    answer = api.http.post("/auth/register", json={"username": "!", "email": "x", "password": "y"}, headers=GERMAN)
    assert answer.json["errors"][0]["message"].startswith("Use 2 to 32")


# Mails


def letters(app: Any) -> list[Any]:
    rooms = rooms_of(app)
    letters = []

    def write(tx: Any) -> None:
        for mail in tx.query(QueuedMail).order_by(QueuedMail.created_at):
            mail.attempts = 1
            letters.append(rooms.mail._write(tx, mail))

    rooms.database.write(write)
    return letters


def test_a_mail_is_in_the_language_of_the_request_that_it_comes_of(apps: Apps):
    app = apps()
    body = {"username": "ann", "email": "ann@example.org", "password": "correct horse 7 battery"}
    assert app.test_client().post("/auth/register", json=body, headers=GERMAN).status_code == 201
    [letter] = letters(app)
    assert letter.subject == "Bestätigen Sie Ihre E-Mail-Adresse"
    assert "/verify-email?token=" in letter.text


def test_what_the_profile_says_comes_first(apps: Apps):
    app = apps()
    rooms = rooms_of(app)
    body = {"username": "ann", "email": "ann@example.org", "password": "correct horse 7 battery"}
    api = Api(app.test_client())
    assert api.http.post("/auth/register", json=body).status_code == 201
    token = api.login("ann")["access_token"]
    assert api.http.put("/users/me", json={"locale": "de-DE"}, headers=bearer(token)).status_code == 200
    assert rooms.recovery.is_open
    api.http.post("/auth/password/forgot", json={"email": "ann@example.org"})
    subjects = {letter.subject for letter in letters(app) if letter}
    assert "Neues Passwort festlegen" in subjects
    assert subjects <= {
        "Neues Passwort festlegen",
        "Bestätigen Sie Ihre E-Mail-Adresse",
        "Neue Anmeldung bei Ihrem Konto",
    }


@pytest.mark.parametrize("kind", list(Kind))
def test_each_letter_is_whole_in_each_language(kind: Kind):
    from tokenserver.identity.letters import HELP, LOST, TEXTS

    words = dict.fromkeys(("link", "at", "username", "issuer", "help", "device", "address", "factor"), "x")
    for name in LANGUAGES:
        for text in (*TEXTS[kind], HELP, LOST):
            assert "{" not in language.translated(text, name).format(**words)


def test_a_device_is_named_in_the_language_of_the_request(app: Any):
    agent = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
    assert device_of(agent) == "Firefox on Linux"
    with app.test_request_context(headers=GERMAN):
        assert device_of(agent) == "Firefox unter Linux"
        assert device_of(None) == "ein unbekanntes Programm"
