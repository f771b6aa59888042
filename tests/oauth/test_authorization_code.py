"""Authorization codes: bound to what they were issued for, spent once, and what a replay ends."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.answers import granted, refused
from tests.conftest import Api, Apps
from tests.oauth.conftest import CALLBACK, VERIFIER, Browser, answer, claims_of
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import AuthorizationCode, RefreshFamily, Session
from tokenserver.tokens.sessions import EndReason


def events(rooms: Rooms) -> list[str]:
    rooms.trail.drain_all()
    return list(rooms.database.read(lambda tx: tx.scalars(select(AuditEvent.event).order_by(AuditEvent.at)).all()))


def test_a_code_becomes_tokens(api: Api, rooms: Rooms, browser: Browser, site):
    """RFC 6749 sections 4.1.2 and 4.1.4; RFC 9207 section 2; OIDC Core section 3.1.3.3."""
    found = answer(browser.authorize(site))
    assert found.keys() == {"code", "state", "iss", "session_state"}
    assert (found["state"], found["iss"]) == ("the state", rooms.settings.issuer)
    tokens = granted(browser.redeem(site, found["code"]))
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope", "id_token"}
    assert tokens["scope"] == "openid posts:create"
    assert granted(api.me(tokens["access_token"]))["username"] == "ann"
    identity, access = claims_of(tokens["id_token"]), claims_of(tokens["access_token"])
    assert (identity["aud"], identity["nonce"], identity["sub"]) == ("app", "the nonce", access["sub"])
    assert identity["sid"] == access["sid"]
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **site.form}
    again = claims_of(granted(api.token(None, **form))["id_token"])
    assert (again["auth_time"], again["sub"], again["sid"]) == tuple(
        identity[name] for name in ("auth_time", "sub", "sid")
    )
    assert {"authorization_code:issued", "token:issued", "session:started"} <= set(events(rooms))


def test_a_replay_is_refused_and_ends_what_the_first_use_gave(api: Api, rooms: Rooms, browser: Browser, site):
    """RFC 6749 sections 4.1.2 and 10.5 (A14); the user stays signed in."""
    code = browser.code(site)
    tokens = granted(browser.redeem(site, code))
    refused(browser.redeem(site, code), 400, "invalid_grant")
    refused(browser.redeem(site, code), 400, "invalid_grant")
    assert api.me(tokens["access_token"]).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **site.form}
    refused(api.token(None, **form), 400, "invalid_grant")
    assert "authorization_code:replayed" in events(rooms)
    granted(browser.redeem(site, browser.code(site)))


def test_a_replay_ends_tokens_that_no_refresh_token_went_with(api: Api, browser: Browser, site_of):
    site = site_of(grant_types=["authorization_code"])
    code = browser.code(site)
    tokens = granted(browser.redeem(site, code))
    assert "refresh_token" not in tokens
    refused(browser.redeem(site, code), 400, "invalid_grant")
    assert api.me(tokens["access_token"]).status_code == 401


def test_50_at_once_give_one_success_and_no_fault(apps: Apps, browser: Browser, site):
    """E02; the losers are replays, so what the winner got ends."""
    code = browser.code(site)
    clients = [app.test_client() for app in (apps(), apps())]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **site.form,
    }
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda n: clients[n % 2].post("/oauth/token", data=form), range(50)))
    winners = [response for response in found if response.status_code == 200]
    assert len(winners) == 1
    for response in found:
        if response is not winners[0]:
            refused(response, 400, "invalid_grant")
    token = winners[0].json["access_token"]
    assert Api(clients[0]).me(token).status_code == 401
    with rooms_of(apps.made[0]).database.engine.connect() as connection:
        rows = connection.execute(select(RefreshFamily.ended_at, RefreshFamily.end_reason)).all()
    assert [(ended is not None, reason) for ended, reason in rows] == [(True, EndReason.CODE_REPLAYED.value)]


def test_whoever_lacks_what_it_is_bound_to_spends_nothing(browser: Browser, site, site_of):
    """RFC 6749 section 4.1.3 (A13), RFC 7636 section 4.6 (D1, D2): the right client can still redeem it."""
    other = site_of("other")
    code = browser.code(site)
    wrong: list[dict[str, Any]] = [
        {"redirect_uri": "https://app.example/other"},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": None},
        {"code_verifier": None},
        {"code_verifier": "w" * 43},
        {"code_verifier": VERIFIER[:-1]},
        {"code_verifier": VERIFIER + "v" * 86},
        {"code_verifier": "é" * 43},
        other.form,
    ]
    for parameters in wrong:
        refused(browser.redeem(site, code, **parameters), 400, "invalid_grant")
    refused(browser.redeem(site, code, client_secret="wrong"), 401, "invalid_client")
    granted(browser.redeem(site, code))


def test_verifier_for_a_code_without_challenge_is_a_downgrade(browser: Browser, site):
    """RFC 9700 section 4.8.2 (D4)."""
    code = browser.code(site, code_challenge=None, code_challenge_method=None)
    refused(browser.redeem(site, code), 400, "invalid_grant")
    granted(browser.redeem(site, code, code_verifier=None))


def test_it_lives_for_a_minute(rooms: Rooms, browser: Browser, site):
    """FAPI 2.0 section 5.3.2.1, OWASP ASVS 10.4.3 (A12)."""
    code = browser.code(site)
    row = rooms.codes.find(code)
    assert row is not None
    assert row.expires_at - row.created_at == timedelta(seconds=60)
    late = update(AuthorizationCode).values(expires_at=utc_now())
    rooms.database.write(lambda tx: tx.execute(late))
    refused(browser.redeem(site, code), 400, "invalid_grant")


def test_nothing_that_is_no_code_passes_for_one(api: Api, browser: Browser, site):
    """CVE-2026-4282: what this server issued for other purposes."""
    tokens = granted(browser.redeem(site, browser.code(site)))
    for other in (tokens["refresh_token"], tokens["access_token"], "ac_", "ac_" + "A" * 43, "x" * 5000, "☃"):
        refused(browser.redeem(site, other), 400, "invalid_grant")
    refused(browser.redeem(site, ""), 400, "invalid_request")


@pytest.mark.parametrize("end", ["disabled", "password", "signed out", "client deleted"])
def test_what_ends_a_sign_in_ends_its_codes(api: Api, rooms: Rooms, browser: Browser, site, end: str):
    """Zitadel CVE-2023-22492 and its like: nobody gets tokens by a code from before."""
    code = browser.code(site)
    row = rooms.codes.find(code)
    assert row is not None
    if end == "disabled":
        rooms.feed.change(
            lambda tx, change: rooms.people.set_status(tx, change, row.user_id, "disabled", rooms.sessions)
        )
    elif end == "client deleted":
        rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "app"))
    else:
        reason = EndReason.PASSWORD_CHANGED if end == "password" else EndReason.LOGOUT
        rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, user_id=row.user_id, reason=reason))
    response = browser.redeem(site, code)
    assert response.status_code == (401 if end == "client deleted" else 400)
    assert rooms.database.read(lambda tx: tx.scalars(select(RefreshFamily.id)).all()) == []


def test_offline_access_outlives_the_browser(api: Api, rooms: Rooms, browser: Browser, site):
    """OIDC Core section 11; Back-Channel Logout section 2.7: without it they end with the browser's session."""

    def refresh(token: str) -> Any:
        return api.token(None, grant_type="refresh_token", refresh_token=token, **site.form)

    within = granted(browser.redeem(site, browser.code(site)))
    beyond = granted(browser.redeem(site, browser.code(site, scope="openid offline_access posts:create")))
    assert claims_of(within["id_token"])["sid"] == claims_of(beyond["id_token"])["sid"]
    assert claims_of(within["access_token"])["sid"] != claims_of(beyond["access_token"])["sid"]
    sid = claims_of(within["id_token"])["sid"]
    reason = EndReason.LOGOUT
    rows = rooms.database.read(lambda tx: tx.scalars(select(Session).order_by(Session.created_at)).all())
    session = next(row for row in rows if str(row.id) == sid)
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, session_id=session.id, reason=reason))
    refused(refresh(within["refresh_token"]), 400, "invalid_grant")
    assert api.me(within["access_token"]).status_code == 401
    granted(api.me(beyond["access_token"]))
    again = granted(refresh(beyond["refresh_token"]))
    assert again["scope"] == "openid offline_access posts:create"
    # It ends alone, with its session.
    granted(api.http.post("/oauth/revoke", data={"token": again["refresh_token"], **site.form}))
    assert api.me(again["access_token"]).status_code == 401


def test_revoking_a_refresh_token_signs_nobody_out_of_the_browser(api: Api, browser: Browser, site):
    tokens = granted(browser.redeem(site, browser.code(site)))
    granted(api.http.post("/oauth/revoke", data={"token": tokens["refresh_token"], **site.form}))
    assert api.me(tokens["access_token"]).status_code == 401
    granted(browser.redeem(site, browser.code(site, prompt="none")))


def test_codes_can_t_be_guessed_and_are_not_stored(rooms: Rooms, browser: Browser, site):
    """RFC 6749 section 10.10 (A18)."""
    codes = {browser.code(site) for _ in range(5)}
    assert len(codes) == 5
    assert all(len(code) == 46 and code.startswith("ac_") for code in codes)
    rows = rooms.database.read(lambda tx: tx.scalars(select(AuthorizationCode)).all())
    stored = repr([{column.name: getattr(row, column.name) for column in row.__table__.columns} for row in rows])
    assert not any(code in stored or code[3:] in stored for code in codes)


def test_old_codes_are_purged(rooms: Rooms, browser: Browser, site):
    browser.code(site)
    assert rooms.codes.purge() == 0
    long_ago = utc_now() - timedelta(days=2)
    rooms.database.write(lambda tx: tx.execute(update(AuthorizationCode).values(expires_at=long_ago)))
    assert rooms.codes.purge() == 1
