"""The request id, and what of a request reaches the log and the records."""

import logging
import re
from typing import Any

import pytest
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps, bearer
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms


def sessions(api: Api, access_token: str) -> list[dict[str, Any]]:
    return list(granted(api.http.get("/users/me/sessions", headers=bearer(access_token)))["items"])


def events(rooms: Rooms, name: str) -> list[AuditEvent]:
    rooms.trail.drain_all()
    query = select(AuditEvent).where(AuditEvent.event == name).order_by(AuditEvent.at)
    return list(rooms.database.read(lambda tx: tx.scalars(query).all()))


def test_request_id_of_the_caller_is_kept_when_it_is_plain(api: Api, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    for given in ("trace-12345678", "0123456789abcdef0123456789abcdef", "a.b_c-d.E"):
        response = api.http.get("/healthz", headers={"X-Request-ID": given})
        assert response.headers["X-Request-ID"] == given
        assert f"id={given} " in caplog.text


def test_request_id_of_the_caller_is_replaced_when_it_isn_t(api: Api):
    for given in (
        "",
        "short",
        "x" * 65,
        "with space 123",
        "a,b,c,d,e,f",
        "\x1b[31mabcdefgh",
        "a" * 9 + "\n",
        "é" * 9,
    ):
        environ = {"HTTP_X_REQUEST_ID": given}
        ids = {api.http.get("/nothing", environ_overrides=environ).json["request_id"] for _ in range(3)}
        assert len(ids) == 3
        assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids), given


def test_one_line_of_log_for_a_request_whatever_it_sends(api: Api, caplog: pytest.LogCaptureFixture):
    """OWASP ASVS 16.4.1."""
    caplog.set_level(logging.INFO)
    api.http.get("/", environ_overrides={"PATH_INFO": "/x\r\nFORGED id=1 \x1b[31m\x00"})
    lines = [r.getMessage() for r in caplog.records if r.name == "tokenserver.request"]
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert lines[0].startswith("GET /x\\r\\nFORGED id=1 ")


def test_no_secret_reaches_a_log_or_the_audit_trail(
    api: Api, rooms: Rooms, confidential: tuple[str, str], caplog: pytest.LogCaptureFixture
):
    """OWASP ASVS 16.2.5."""
    caplog.set_level(logging.DEBUG)
    tokens = api.signed_in()
    new_password, typo = "another horse 8 battery", "mistyped horse 9 battery"
    change = {"password": new_password, "current_password": PASSWORD}
    granted(api.http.put("/users/me", json=change, headers=bearer(tokens["access_token"])))
    api.http.post("/auth/login", json={"login": typo, "password": typo})
    again = granted(api.refresh(tokens["refresh_token"]))
    api.refresh(tokens["refresh_token"] + "x")
    own = granted(api.token(confidential, grant_type="client_credentials"))["access_token"]
    api.introspect(confidential, own)
    api.token((confidential[0], "wrong-client-secret"), grant_type="client_credentials")
    api.http.get(f"/users/me?access_token={own}")
    api.revoke(again["refresh_token"])
    api.http.get("/users/me", headers=bearer(again["access_token"]))

    secret = [PASSWORD, new_password, typo, confidential[1], "wrong-client-secret", own]
    secret += [t[kind] for t in (tokens, again) for kind in ("access_token", "refresh_token")]
    written = caplog.text + "".join(str(vars(r)) for r in caplog.records if r.name.startswith("tokenserver"))
    rooms.trail.drain_all()
    rows = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent)).all())
    written += "".join(str(vars(row)) for row in rows)
    assert "/users/me" in written
    assert "login:failed" in written
    assert [value for value in secret if value in written] == []


def test_an_event_says_who_when_from_where_and_what(api: Api, rooms: Rooms):
    """OWASP ASVS 16.2.1."""
    user = api.register()
    headers = {"X-Request-ID": "trace-failed-login"}
    wrong = {"login": "ann", "password": "wrong horse"}
    api.http.post("/auth/login", json=wrong, headers=headers, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    event = events(rooms, "login:failed")[0]
    assert (event.target, event.outcome, event.reason) == (user["id"], "denied", "invalid_credentials")
    assert (event.address, event.request_id, event.client_id) == ("192.0.2.7", "trace-failed-login", "first-party")
    assert event.at.utcoffset() is not None
    assert event.at.utcoffset().total_seconds() == 0


def test_what_a_proxy_or_a_browser_makes_up_is_stored_harmlessly(api: Api):
    """PostgreSQL refuses NUL and texts that are too long, where SQLite takes both."""
    api.register()
    body = {"login": "ann", "password": PASSWORD}
    sent = {
        "Browser\0/1.0 \r\n\x1b[31m\u2028": "192.0.2.1",
        "B" * 5000: "2001:db8::1",
        "no address": "x" * 300,
        "zone": "fe80::1%" + "e" * 300,
        "\xff": "",
    }
    for user_agent, address in sent.items():
        environ = {"HTTP_USER_AGENT": user_agent, "REMOTE_ADDR": address}
        tokens = granted(api.http.post("/auth/login", json=body, environ_overrides=environ))
        failed = api.http.post("/auth/login", json={**body, "password": "wrong"}, environ_overrides=environ)
        refused(failed, 401, "invalid_credentials")
    items = sessions(api, tokens["access_token"])
    assert [item["address"] for item in items] == [None, "fe80::1", None, "2001:db8::1", "192.0.2.1"]
    assert all((item["user_agent"] or "x").isprintable() and len(item["user_agent"] or "") <= 255 for item in items)
    assert items[-1]["user_agent"].startswith("Browser/1.0")


def test_forwarded_addresses_are_believed_from_known_proxies_alone(apps: Apps):
    """RFC 9700 section 4.13; host and scheme are never taken from a header."""
    forwarded = {
        "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9;host=evil.example",
    }
    for hops, expected in ((0, "127.0.0.1"), (1, "198.51.100.7"), (2, "203.0.113.9"), (3, "127.0.0.1")):
        app = apps(trusted_proxies=hops)
        client = app.test_client()
        wrong = {"login": f"nobody{hops}", "password": "wrong"}
        refused(client.post("/auth/login", json=wrong, headers=forwarded), 401, "invalid_credentials")
        assert events(rooms_of(app), "login:failed")[-1].address == expected
        metadata = granted(client.get("/.well-known/openid-configuration", headers=forwarded))
        assert metadata["issuer"] == rooms_of(app).settings.issuer
        assert "evil" not in str(metadata)
