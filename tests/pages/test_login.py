"""`/login`: the form, what it refuses, and where it leads."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from tests.conftest import PASSWORD, Api, Apps
from tests.pages.conftest import Browser, policy_of, refused, shown
from tokenserver.app import rooms_of
from tokenserver.clients.models import ClientRow
from tokenserver.identity.people import DISABLED
from tokenserver.web.cookies import new_cookie


def test_it_shows_who_asks_and_sends_the_user_back(browser: Browser):
    """OIDC Registration section 2: logo, policy and terms; OIDC Core section 3.1.2.1: login_hint."""
    interaction = browser.begin(login_hint='ann"><script>')
    page = browser.http.get(f"/login?interaction={interaction.id}")
    elements = shown(page)
    assert elements.texts["client-name"] == "An <app>"
    assert elements.ids["client-logo"]["src"] == "https://cdn.example:8443/logo.png?a=1"
    assert elements.ids["client-logo"]["referrerpolicy"] == "no-referrer"
    assert elements.ids["client-policy"]["href"] == "https://app.example/policy"
    assert elements.ids["client-tos"]["href"] == "https://app.example/terms"
    assert elements.ids["username"]["value"] == 'ann"><script>'
    assert elements.ids["username"]["autocomplete"] == "username"
    assert elements.ids["password"]["autocomplete"] == "current-password"
    assert {"login-submit", "login-cancel"} <= elements.ids.keys()
    policy = policy_of(page)
    assert policy["img-src"] == "'self' https://cdn.example:8443"
    assert policy["form-action"] == "'self' https:"

    answer = browser.send(page, username="ann", password=PASSWORD)
    # RFC 9700 section 4.12: 303, never 307
    assert (answer.status_code, answer.headers["Location"]) == (303, interaction.resume)
    assert rooms_of(browser.app).browser_sessions.find(browser.session)


def test_without_a_client_it_tells_who_is_signed_in_and_signs_out(browser: Browser):
    page = browser.http.get("/login")
    assert "login-cancel" not in shown(page).ids
    assert policy_of(page)["form-action"] == "'self'"
    answer = browser.sign_in()
    assert (answer.status_code, answer.headers["Location"]) == (303, "/account")
    assert browser.http.get("/login").headers["Location"] == "/account"
    page = browser.http.get("/account")
    assert shown(page).texts["signed-in-as"] == "ann"
    session = browser.session
    done = browser.http.post("/login/sign-out", data=shown(page).fields)
    assert "signed-out" in shown(done).ids
    assert browser.session is None
    assert rooms_of(browser.app).browser_sessions.find(session) is None


def test_the_session_cookie_changes_and_the_browsers_stays(browser: Browser):
    """OWASP ASVS 7.2.4; CVE-2026-7507: a planted session cookie is never adopted."""
    cookies, planted = rooms_of(browser.app).cookies, new_cookie()
    browser.http.set_cookie(cookies.session_name, planted)
    before = browser.cookie
    browser.sign_in()
    first = browser.session
    browser.sign_in(browser.begin())
    assert len({planted, first, browser.session}) == 3
    assert browser.cookie == before
    for dead in (planted, first):
        assert rooms_of(browser.app).browser_sessions.find(dead) is None


def test_on_https_cookies_are_for_this_host_alone(apps: Apps, api: Api):
    """OWASP ASVS 3.3.1 to 3.3.4."""
    api.register()
    http = apps(issuer="https://id.example").test_client()
    page = http.get("/login", base_url="https://id.example")
    (browser_cookie,) = page.headers.getlist("Set-Cookie")
    fields = shown(page).fields | {"username": "ann", "password": PASSWORD}
    done = http.post("/login", base_url="https://id.example", data=fields, headers={"Origin": "https://id.example"})
    session_cookie = next(each for each in done.headers.getlist("Set-Cookie") if each.startswith("__Host-session="))
    assert done.status_code == 303
    for cookie, name in ((browser_cookie, "browser"), (session_cookie, "session")):
        assert cookie.startswith(f"__Host-{name}=")
        assert cookie.partition("; ")[2] == "Secure; HttpOnly; Path=/; SameSite=Lax"


def test_one_sentence_for_an_unknown_user_and_a_wrong_password(browser: Browser, rooms: Any):
    """OWASP ASVS 6.3.8."""
    interaction = browser.begin()
    page = browser.http.get(f"/login?interaction={interaction.id}")
    texts = set()
    for username, password in (("ann", "wrong"), ("nobody", PASSWORD), ("ann@example.org", "x")):
        answer = browser.send(page, username=username, password=password)
        elements = refused(answer, 401, "invalid_credentials")
        assert elements.ids["error"]["role"] == "alert"
        assert elements.ids["username"]["value"] == username
        assert "value" not in elements.ids["password"]
        texts.add(elements.texts["error-sentence"])
    assert len(texts) == 1
    refused(browser.send(page, username="ann"), 400, "missing_credentials")
    # The form that was answered with goes on like the first.
    assert browser.send(answer, username="ann", password=PASSWORD).headers["Location"] == interaction.resume


def test_a_disabled_account_is_told_after_the_right_password(browser: Browser, rooms: Any):
    user_id = rooms.people.find_by_login("ann").id
    rooms.feed.change(lambda tx, change: rooms.people.set_status(tx, change, user_id, DISABLED, rooms.sessions))
    page = browser.http.get("/login")
    refused(browser.send(page, username="ann", password="wrong"), 401, "invalid_credentials")
    refused(browser.send(page, username="ann", password=PASSWORD), 403, "account_disabled")
    assert browser.session is None


def test_too_many_guesses(browser: Browser, rooms: Any):
    """OWASP ASVS 2.4.1; the count is that of every other sign-in."""
    page = browser.http.get("/login")
    for _ in range(rooms.settings.limit_login.quota + 2):
        answer = browser.send(page, username="ann", password="wrong")
    refused(answer, 429, "too_many_requests")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:x"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_from_elsewhere_does_nothing(browser: Browser, headers: dict[str, str]):
    """OWASP ASVS 3.5.1."""
    page = browser.http.get("/login")
    refused(browser.send(page, headers, username="ann", password=PASSWORD), 403, "csrf_failed")
    assert browser.session is None


def test_a_form_of_another_browser_does_nothing(browser: Browser, browser_of: Callable[[Flask], Browser]):
    """Login CSRF: nobody is signed in as somebody else."""
    page = browser.http.get("/login")
    others = shown(browser_of(browser.app).http.get("/login")).fields["csrf"]
    for csrf in ("", "x", others, "\u00e9"):
        refused(browser.send(page, csrf=csrf, username="ann", password=PASSWORD), 403, "csrf_failed")
    good = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert browser.send(page, good, username="ann", password=PASSWORD).status_code == 303
    refused(browser.http.post("/login/sign-out"), 400, "malformed_request")
    refused(browser.http.post("/login/sign-out", data={"csrf": others}), 403, "csrf_failed")
    assert rooms_of(browser.app).browser_sessions.find(browser.session)


def test_an_interaction_of_another_browser_is_refused(browser: Browser, browser_of: Callable[[Flask], Browser]):
    """Nobody hands somebody else a half-finished sign-in."""
    others = browser_of(browser.app).begin()
    for interaction_id in (others.id, new_cookie(), "x", "../x"):
        refused(browser.http.get(f"/login?interaction={interaction_id}"), 404, "interaction_not_found")
        page = browser.http.get("/login")
        answer = browser.send(page, interaction=interaction_id, username="ann", password=PASSWORD)
        refused(answer, 404, "interaction_not_found")
    assert browser.session is None


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "/\t/evil.example", "https://evil.example"]
)
def test_nothing_in_a_request_says_where_it_leads(browser: Browser, target: str):
    """CVE-2023-49438 (Flask-Security), CVE-2026-82467, CVE-2026-83589."""
    for name in ("next", "resume", "return_to", "redirect_uri"):
        page = browser.http.get("/login", query_string={name: target})
        assert target not in page.text
        rooms_of(browser.app).browser_sessions.sign_out(browser.session)
        page = browser.http.get("/login", query_string={name: target})
        answer = browser.send(page, username="ann", password=PASSWORD, **{name: target})
        assert answer.headers["Location"] == "/account"


def test_cancel(browser: Browser):
    interaction = browser.begin()
    page = browser.http.get(f"/login?interaction={interaction.id}")
    answer = browser.send(page, cancel="1")
    assert (answer.status_code, answer.headers["Location"]) == (303, interaction.resume + "&cancel=1")
    refused(browser.send(browser.http.get("/login"), cancel="1"), 400, "missing_credentials")
    assert browser.session is None


def test_malformed_forms(browser: Browser):
    page = browser.http.get("/login")
    csrf = shown(page).fields["csrf"]
    form = {"content_type": "application/x-www-form-urlencoded"}
    good = f"csrf={csrf}&username=ann&password=x"
    for body in (f"{good}&username=ann", f"{good}%00", f"{good}%ff", "x", good + "&a=" * 60):
        refused(browser.http.post("/login", data=body, **form), 400, "malformed_request")
    refused(browser.http.post(f"/login?csrf={csrf}", data=good, **form), 400, "malformed_request")
    refused(browser.http.post("/login", json={"csrf": csrf}), 400, "malformed_request")
    refused(browser.http.post("/login", data=good + "x" * 65536, **form), 413, "body_too_large")
    for query in ("interaction=a&interaction=b", "interaction=%00", "interaction=%ff"):
        refused(browser.http.get(f"/login?{query}"), 400, "malformed_request")


def test_without_redis_nobody_is_let_in(
    apps: Apps, own_redis: Any, browser_of: Callable[[Flask], Browser], api: Api
):
    api.register()
    browser = browser_of(apps(redis_url=own_redis.url()))
    page = browser.http.get("/login")
    interaction = browser.begin()
    browser.sign_in()
    own_redis.stop()
    for answer in (
        browser.http.get("/login"),
        browser.http.get(f"/login?interaction={interaction.id}"),
        browser.http.get(f"/consent?interaction={interaction.id}"),
        browser.send(page, username="ann", password=PASSWORD),
    ):
        refused(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("redirect_uri", "allowed"),
    [
        ("https://app.example/cb", "'self' https:"),
        ("http://127.0.0.1:9000/cb", "'self' http:"),
        ("http://[::1]:9000/cb", "'self' http:"),
        ("com.example.app:/cb", "'self' com.example.app:"),
        ("nothing", "'self'"),
        (None, "'self'"),
    ],
)
def test_the_policy_lets_the_form_lead_to_the_client(browser: Browser, redirect_uri: Any, allowed: str):
    """CSP level 3, form-action: Chromium asks it about the redirects after a form, past the client's own too."""
    interaction = browser.begin(redirect_uri=redirect_uri)
    page = browser.http.get(f"/login?interaction={interaction.id}")
    assert policy_of(page)["form-action"] == allowed


def test_whatever_was_registered_only_web_addresses_become_links(browser: Browser, rooms: Any):
    bad = "javascript:alert(1)"
    odd = {"logo_uri": "https://x.example; script-src *", "policy_uri": bad, "tos_uri": "data:x", "client_uri": bad}
    rooms.clients.create(client_id="odd", grant_types=["client_credentials"])
    row = (
        update(ClientRow).where(ClientRow.client_id == "odd").values(optional=odd)
    )  # as if it had been let in once
    rooms.database.write(lambda tx: tx.execute(row))
    interaction = browser.begin("odd")
    page = browser.http.get(f"/login?interaction={interaction.id}")
    assert not {"client-logo", "client-policy", "client-tos"} & shown(page).ids.keys()
    assert policy_of(page)["img-src"] == "'self'"
