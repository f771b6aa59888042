"""`/forgot-password`, `/reset-password`, `/verify-email`: as a person without JavaScript walks them."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

from tests.conftest import PASSWORD, Api, Apps
from tests.pages.conftest import Browser, Elements, refused, shown
from tests.smtp_server import SmtpServer, smtp
from tokenserver.app import rooms_of

__all__ = ["smtp"]

NEW = "a new horse 8 battery"


@pytest.fixture
def server(smtp: Callable[..., SmtpServer]) -> SmtpServer:
    return smtp()


@pytest.fixture
def app(apps: Apps, server: SmtpServer) -> Flask:
    return apps(smtp_url=f"smtp://localhost:{server.port}?starttls=off")


def mailed(browser: Browser, server: SmtpServer) -> str:
    """Path and query of the link in the newest mail."""
    rooms_of(browser.app).mail.deliver()
    found = re.search(r"http://\S+\?token=\S+", server.received[-1].text)
    assert found
    url = urlsplit(found[0])
    return f"{url.path}?{url.query}"


def asked(browser: Browser, server: SmtpServer, email: str = "ann@example.org") -> str:
    page = browser.http.get("/login")
    assert Elements(page.text).ids["forgot-password"]["href"] == "/forgot-password"
    done = browser.send(browser.http.get("/forgot-password"), email=email)
    assert "forgot-done" in shown(done).ids
    return mailed(browser, server)


def opened(browser: Browser, link: str) -> Any:
    """The page of a link, which is no longer in its address."""
    moved = browser.http.get(link)
    assert (moved.status_code, moved.headers["Location"]) == (303, link.partition("?")[0])
    assert moved.headers["Referrer-Policy"] == "no-referrer"
    assert moved.headers["Cache-Control"] == "no-store"
    [cookie] = [each for each in moved.headers.getlist("Set-Cookie") if "link_" in each]
    for attribute in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="):
        assert attribute in cookie
    page = browser.http.get(moved.headers["Location"])
    assert link.partition("token=")[2] not in page.text
    return page


def test_forgotten_password(browser: Browser, server: SmtpServer, api: Api):
    page = opened(browser, asked(browser, server))
    elements = shown(page)
    assert elements.texts["account"] == "ann"
    assert elements.ids["password"]["autocomplete"] == "new-password"
    assert "reset-submit" in elements.ids
    # A weak one: the page again, with the reason.
    again = browser.send(page, password="password1")
    elements = shown(again, 422)
    assert elements.texts["error-code"] == "validation_failed"
    assert "most common" in elements.texts["error-sentence"]
    assert "password1" not in again.text
    done = browser.send(again, password=NEW)
    assert shown(done).ids["sign-in"]["href"] == "/login"
    assert browser.session is None  # nobody is signed in by it
    refused_again = browser.send(page, password=NEW)
    assert refused(refused_again, 404, "link_not_found").ids["again"]["href"] == "/forgot-password"
    api.login("ann", NEW)


def test_answer_is_the_same_for_everybody(browser: Browser, server: SmtpServer):
    pages = [
        browser.send(browser.http.get("/forgot-password"), email=email)
        for email in ("ann@example.org", "nobody@example.org")
    ]
    assert len({(each.status_code, each.text) for each in pages}) == 1
    refused(browser.send(browser.http.get("/forgot-password"), email="ann"), 422, "validation_failed")


def test_a_browser_that_was_signed_in_is_out(browser: Browser, server: SmtpServer):
    browser.sign_in()
    assert "sign-out" in browser.http.get("/account").text
    done = browser.send(opened(browser, asked_signed_in(browser, server)), password=NEW)
    assert "reset-done" in shown(done).ids
    assert "login-submit" in Elements(browser.http.get("/login").text).ids


def asked_signed_in(browser: Browser, server: SmtpServer) -> str:
    browser.send(browser.http.get("/forgot-password"), email="ann@example.org")
    return mailed(browser, server)


def test_looking_at_a_link_uses_nothing_up(browser: Browser, server: SmtpServer, app: Flask):
    """Programs that look into mail follow links; another browser may have looked too."""
    link = asked(browser, server)
    other = Browser(app.test_client(), app)
    for method in ("get", "head", "get"):
        assert getattr(other.http, method)(link).status_code == 303
    assert "reset-submit" in shown(other.http.get("/reset-password")).ids
    assert "reset-done" in shown(browser.send(opened(browser, link), password=NEW)).ids


def test_address_is_confirmed_by_a_button(browser: Browser, server: SmtpServer, api: Api):
    page = opened(browser, mailed(browser, server))
    elements = shown(page)
    assert (elements.texts["email"], elements.texts["account"]) == ("ann@example.org", "ann")
    token = api.login()["access_token"]
    assert api.me(token).json["email_verified"] is False  # looking was not enough
    assert "verify-done" in shown(browser.send(page)).ids
    assert api.me(token).json["email_verified"] is True
    refused(browser.send(page), 404, "link_not_found")


@pytest.mark.parametrize("path", ["/reset-password", "/verify-email"])
def test_link_that_is_none(browser: Browser, path: str):
    refused(browser.http.get(path), 404, "link_not_found")
    for token in ("x", "x" * 43, "%00", "%ED%A0%80", "x" * 5000):
        moved = browser.http.get(f"{path}?token={token}")
        if moved.status_code == 303:
            refused(browser.http.get(path), 404, "link_not_found")
        else:
            assert moved.status_code == 400
    refused(browser.http.get(f"{path}?token=a&token=b"), 400, "malformed_request")


@pytest.mark.parametrize("path", ["/forgot-password", "/reset-password", "/verify-email"])
def test_form_of_another_site_is_refused(browser: Browser, server: SmtpServer, path: str, api: Api):
    """Or one that has no token of ours: nothing was done."""
    browser.http.get(asked(browser, server) if path == "/reset-password" else mailed(browser, server))
    fields = {"password": NEW, "email": "ann@example.org"}
    count = len(server.received)
    refused(browser.http.post(path, data=fields), 403, "csrf_failed")
    good = Elements(browser.http.get("/forgot-password").text).fields["csrf"]
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    refused(browser.http.post(path, data=fields | {"csrf": good}, headers=elsewhere), 403, "csrf_failed")
    rooms_of(browser.app).mail.deliver()
    assert len(server.received) == count
    assert api.me(api.login("ann", PASSWORD)["access_token"]).json["email_verified"] is False


def test_without_a_mail_server_it_is_said_so(apps: Apps):
    app = apps(env="production", issuer="https://id.example")
    client = app.test_client()
    assert "forgot-password" not in client.get("/login").text
    elements = shown(client.get("/forgot-password"))
    assert "mail-not-configured" in elements.ids
    assert "forgot-submit" not in elements.ids


def test_a_browser_that_is_new_is_told_of(browser: Browser, server: SmtpServer, app: Flask):
    """Not the first one of all, and each once."""
    rooms_of(app).mail.deliver()
    server.received.clear()
    browser.sign_in()
    browser.send(browser.http.get("/login"))  # signed out again
    browser.sign_in()
    rooms_of(app).mail.deliver()
    assert server.received == []
    other = Browser(app.test_client(), app)
    other.http.environ_base["HTTP_USER_AGENT"] = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
    for _ in range(2):
        other.sign_in()
        rooms_of(app).mail.deliver()
    assert [each.message["Subject"] for each in server.received] == ["New sign-in to your account"]
    assert "with: Firefox on Linux\nfrom: 127.0.0.1\n" in server.received[0].text
