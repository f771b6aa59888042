"""Walks by people whose browsers ask for German: its words are longer."""

from tests.browser.test_admin import CONSOLE, enter
from tests.conftest import PASSWORD


def test_a_walk_in_german(browsers, site, client_id):
    visitor = browsers(locale="de-DE")
    username = site.new_name()
    visitor.open(site.authorization_request(client_id))
    assert visitor.page.title() == "Anmelden"
    visitor.check("german-sign-in")
    visitor.page.click("#register")
    visitor.page.fill("#email", f"{username}@example.org")
    visitor.page.fill("#username", username)
    visitor.page.fill("#password", "passwort")
    visitor.page.click("#register-submit")
    assert visitor.text("#error-sentence").startswith("Dies ist eines der häufigsten Passwörter")
    visitor.check("german-register-refused")
    visitor.page.fill("#password", PASSWORD)
    visitor.page.click("#register-submit")
    assert "Beiträge schreiben" in visitor.text("#consent-scopes")
    visitor.check("german-consent")
    visitor.page.click("#consent-allow")
    assert "code" in visitor.landed()
    for path, heading in (
        ("/account", "Profil"),
        ("/account/password", "Passwort ändern"),
        ("/account/security", "Sicherheit"),
        ("/account/sessions", "Wo Sie angemeldet sind"),
        ("/account/applications", "Verbundene Anwendungen"),
    ):
        visitor.open(path)
        assert visitor.text("h1") == heading
        visitor.check(f"german{path.replace('/', '-')}")
    visitor.page.click("#sign-out")
    assert visitor.text("#signed-out") == "Sie sind abgemeldet."
    visitor.open("/device")
    visitor.check("german-device")
    visitor.open("/login?interaction=unknown")
    visitor.check("german-error")
    assert site.letter(f"{username}@example.org", "öffnen Sie innerhalb eines Tages diese Seite")

    # What the application asks for comes before what the browser does.
    visitor.open(site.authorization_request(client_id, ui_locales="en de"))
    assert visitor.page.title() == "Sign in"


def test_the_console_in_german(browsers, site):
    visitor = browsers(locale="de-DE")
    username = site.somebody()
    enter(visitor)
    visitor.page.click("#go-users")
    visitor.page.click(f"text={username}")
    visitor.page.fill("#add", "moderator")
    visitor.page.click("#give-role")
    assert "1 Person erhält posts:delete:any." in visitor.text("#effect")
    visitor.page.click("#confirm")
    visitor.check("german-console-user")
    for section, title in (("roles", "Rollen"), ("keys", "Schlüssel"), ("log", "Protokoll")):
        visitor.open(f"{CONSOLE}/{section}")
        assert visitor.text("h1") == title
        visitor.check(f"german-console-{section}")
