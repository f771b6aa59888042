"""Passwords known from breaches, looked up without telling them: a real listener that answers like the service."""

import hashlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.listeners import Listener
from tokenserver.config import Settings
from tokenserver.errors import Unavailable
from tokenserver.identity import breached_passwords
from tokenserver.identity.breached_passwords import BreachedPasswords

KNOWN = "known from a breach"
PADDING = "known to nobody"
DIGEST = hashlib.sha1(KNOWN.encode()).hexdigest().upper()


def suffix(password: str) -> str:
    return hashlib.sha1(password.encode()).hexdigest().upper()[5:]


# Whatever prefix is asked for: the suffix alone is compared.
LINES = f"{suffix(KNOWN)}:17\r\n{suffix(PADDING)}:0\r\n{'0' * 35}:3".encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(LINES), LINES)


def settings(listener: Listener, **options: Any) -> Settings:
    url = f"http://127.0.0.1:{listener.port}/range/"
    return Settings(breached_passwords_url=url, fetch_private="127.0.0.0/8", **options)


def passwords(listener: Listener, **options: Any) -> BreachedPasswords:
    return BreachedPasswords(settings(listener, **options), slots=2, seconds=30)


def test_five_digits_are_all_that_is_told(listen: Callable[..., Listener]):
    listener = listen(ANSWER)
    breached = passwords(listener)
    assert breached.knows(KNOWN)
    assert not breached.knows(PADDING)
    assert not breached.knows(PASSWORD)
    head = listener.requests[0].decode()
    assert head.startswith(f"GET /range/{DIGEST[:5]} HTTP/1.1\r\n")
    assert "\r\nAdd-Padding: true\r\n" in head
    assert DIGEST[5:] not in head
    assert KNOWN not in head


def test_nothing_is_asked_unless_told_to(listen: Callable[..., Listener]):
    assert not BreachedPasswords(Settings(), slots=1).knows(KNOWN)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 2_000_000,
    ],
)
def test_away(listen: Callable[..., Listener], answer: bytes, caplog: pytest.LogCaptureFixture):
    """Accepted or refused as the settings say; asked again only after a pause; logged without the digest."""
    listener = listen(answer)
    accepting, refusing = passwords(listener), passwords(listener, breached_passwords_away="refuse")
    for _ in range(3):
        assert not accepting.knows(KNOWN)
        with pytest.raises(Unavailable) as error:
            refusing.knows(KNOWN)
        assert error.value.code == "password_check_unavailable"
    assert len(listener.requests) == 2
    assert "breached passwords is away" in caplog.text
    assert DIGEST[:5] not in caplog.text

    listener.answer = ANSWER
    accepting._away_until = refusing._away_until = 0.0  # the pause is over
    assert accepting.knows(KNOWN)
    assert refusing.knows(KNOWN)


def test_who_never_answers_is_given_up(listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(breached_passwords, "PAUSE_SECONDS", 0.0)
    hangs = listen(lambda connection: connection.recv(1))
    assert not BreachedPasswords(settings(hangs), slots=1, seconds=0.2).knows(KNOWN)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        away = Settings(breached_passwords_url=url, fetch_private="127.0.0.0/8")
        assert not BreachedPasswords(away, slots=1, seconds=0.2).knows(KNOWN)


def test_no_more_threads_wait_than_may(listen: Callable[..., Listener]):
    """Whoever finds all places taken is answered as while the service is away."""
    listener = listen(lambda connection: connection.recv(1))  # until the other side gives up
    breached = BreachedPasswords(settings(listener), slots=2, seconds=2)
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: breached.knows(KNOWN), range(8)))
    assert listener.connections <= 2


def test_wherever_a_password_is_set(
    listen: Callable[..., Listener], apps: Apps, api_of: Callable[[Flask], Api], backend: str
):
    listener = listen(ANSWER)
    url = f"http://127.0.0.1:{listener.port}/range"
    app = apps(breached_passwords_url=url, fetch_private="127.0.0.0/8", breached_passwords_away="refuse")
    api = api_of(app)
    body = {"username": "bob", "email": "bob@example.org", "password": KNOWN}
    errors = refused(api.http.post("/auth/register", json=body), 422, "validation_failed").json["errors"]
    assert [(error["field"], KNOWN in error["message"]) for error in errors] == [("password", False)]
    assert "data breach" in errors[0]["message"]

    token = bearer(api.signed_in()["access_token"])
    change = {"password": KNOWN, "current_password": PASSWORD}
    errors = refused(api.http.put("/users/me", json=change, headers=token), 422, "validation_failed").json["errors"]
    assert [error["field"] for error in errors] == ["password"]
    change["password"] = "not known to anybody"
    granted(api.http.put("/users/me", json=change, headers=token))

    listener.answer = b""
    away = api.http.post("/auth/register", json=body)
    assert refused(away, 503, "password_check_unavailable").headers["Retry-After"]
