"""The one cutoff rule (docs/revocation.md): each kind of end, at each entry point, in each process, at once."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select, update

import tokenserver
from tests.redis_access import raw_redis
from tests.revocation_lists import listed
from tokenserver.app import rooms_of
from tokenserver.identity.people import DISABLED
from tokenserver.storage.feed import FeedRow, Kind
from tokenserver.tokens.access_token import new_jti
from tokenserver.tokens.models import RefreshFamily, Session
from tokenserver.tokens.sessions import EndReason
from tokenserver.verify.revoked import issued_at_ms

PASSWORD = "correct horse 7 battery"


def claims_of(app, token):
    return rooms_of(app).active_tokens.verifier.verify(token)


def end(rooms, **what):
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, reason=EndReason.REVOKED, **what))


def logout(app, api, tokens):
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert api.http.post("/auth/logout", headers=headers).status_code == 204


def revoke_refresh_token(app, api, tokens):
    auth = ("backend", tokens["secret"])
    assert api.http.post("/oauth/revoke", data={"token": tokens["refresh_token"]}, auth=auth).status_code == 200


def end_session(app, api, tokens):
    end(rooms_of(app), session_id=UUID(claims_of(app, tokens["access_token"]).sid))


def end_all_of_user(app, api, tokens):
    end(rooms_of(app), user_id=UUID(claims_of(app, tokens["access_token"]).sub))


def end_all_of_client(app, api, tokens):
    end(rooms_of(app), client_id="backend")


def disable_user(app, api, tokens):
    rooms = rooms_of(app)
    user_id = UUID(claims_of(app, tokens["access_token"]).sub)
    rooms.feed.change(lambda tx, change: rooms.people.set_status(tx, change, user_id, DISABLED, rooms.sessions))


def delete_client(app, api, tokens):
    rooms = rooms_of(app)
    rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "backend"))


def change_password_elsewhere(app, api, tokens):
    other = api.login()
    response = api.http.put(
        "/users/me",
        json={"password": "another horse 8 battery", "current_password": PASSWORD},
        headers={"Authorization": f"Bearer {other['access_token']}"},
    )
    assert response.status_code == 200


def cut_off_everything(app, api, tokens):
    rooms_of(app).feed.change(lambda tx, change: change.note(Kind.EVERYTHING))


def reuse(app, api, tokens):
    rooms = rooms_of(app)
    family_id, _ = rooms.refresh_tokens.parse(tokens["refresh_token"])
    rooms.sessions.end_reused(family_id)


ENDS = [
    logout,
    revoke_refresh_token,
    end_session,
    end_all_of_user,
    end_all_of_client,
    disable_user,
    delete_client,
    change_password_elsewhere,
    cut_off_everything,
    reuse,
]


@pytest.mark.parametrize("how", ENDS, ids=lambda how: how.__name__)
def test_nothing_accepts_what_was_revoked(apps, api_of, how):
    """CVE-2026-8922, CVE-2026-18218 (Keycloak): one path forgot the rule. Here every path is asked, in the process
    that revoked, in one that was running, and in one that starts afterwards with an empty Redis."""
    here, there = apps(), apps()
    secret = rooms_of(here).clients.create(
        client_id="backend",
        client_name="",
        grant_types=["password", "refresh_token"],
        scope=["openid", "posts:create", "tokens:introspect"],
    )[1]
    watcher = rooms_of(here).clients.create(
        client_id="watcher", client_name="", grant_types=["client_credentials"], scope=["tokens:introspect"]
    )[1]
    api, other = api_of(here), api_of(there)
    api.register()
    auth = ("backend", secret)
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
    tokens = api.token(auth, **form).json | {"secret": secret}
    for process in (api, other):
        assert not listed(process, tokens["access_token"])
        assert process.me(tokens["access_token"]).status_code == 200
        assert process.introspect(("watcher", watcher), tokens["access_token"]).json["active"]
        assert process.introspect(auth, tokens["refresh_token"]).json["active"]

    how(here, api, tokens)

    late = apps()
    # The other process first, and with a refresh: it has not looked at the feed since.
    for process in (other, api, api_of(late)):
        if process.http.application is late:
            raw_redis(rooms_of(late).store).flushdb()
        assert listed(process, tokens["access_token"])
        refused = process.token(auth, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        assert refused.json["error"] == ("invalid_client" if how is delete_client else "invalid_grant")
        assert process.me(tokens["access_token"]).status_code == 401
        assert process.introspect(("watcher", watcher), tokens["access_token"]).json == {"active": False}
        if how is not delete_client:
            assert process.introspect(auth, tokens["refresh_token"]).json == {"active": False}


def test_one_access_token_alone(app, api, apps, api_of):
    """RFC 7009: the token that was sent, and no other."""
    tokens = api.signed_in()
    sibling = api.refresh(tokens["refresh_token"]).json
    assert api.revoke(tokens["access_token"]).status_code == 200
    for process in (api, api_of(apps())):
        assert listed(process, tokens["access_token"])
        assert process.me(tokens["access_token"]).status_code == 401
        assert not listed(process, sibling["access_token"])
        assert process.me(sibling["access_token"]).status_code == 200


def test_other_users_and_later_tokens_are_not_touched(app, api):
    ann, bob = api.signed_in(), api.signed_in("bob")
    end_all_of_user(app, api, ann)
    assert api.me(bob["access_token"]).status_code == 200
    assert api.me(api.login()["access_token"]).status_code == 200


def test_a_session_that_starts_while_the_password_changes_does_not_survive(app, api, rooms):
    """E06: the transaction that starts a session looks at the password again."""
    api.register()
    proof = rooms.login.authenticate("ann", PASSWORD)
    tokens = api.login()
    change_password_elsewhere(app, api, tokens)
    assert rooms.database.read(proof.holds) is False


def test_a_session_ends_with_the_last_of_its_families(api, rooms):
    tokens = api.signed_in()
    api.revoke(tokens["refresh_token"])
    session = rooms.database.read(lambda tx: tx.scalar(select(Session)))
    family = rooms.database.read(lambda tx: tx.scalar(select(RefreshFamily)))
    assert session.ended_at
    assert (session.end_reason, family.end_reason) == ("revoked", "revoked")


def test_cutoffs_are_finer_than_a_second():
    """`iat` is whole seconds; the jti (UUID version 7, RFC 9562) carries the milliseconds."""
    assert issued_at_ms(new_jti(1_795_369_537_123), 1_795_369_537) == 1_795_369_537_123
    assert issued_at_ms("c5a5c0de-0000-4000-8000-000000000000", 1_795_369_537) == 1_795_369_537_000
    assert issued_at_ms("no uuid", 1_795_369_537.9) == 1_795_369_537_000


def test_jtis_are_unique():
    assert len({new_jti(1_795_369_537_123) for _ in range(20_000)}) == 20_000


def test_expired_entries_are_purged_in_batches(rooms):
    for i in range(5):
        rooms.feed.change(lambda tx, change, i=i: change.note(Kind.TOKEN, str(i)))
    rooms.database.write(lambda tx: tx.execute(update(FeedRow).where(FeedRow.kind == "token").values(expires_at=1)))
    assert [rooms.feed.purge(2), rooms.feed.purge(2), rooms.feed.purge(2), rooms.feed.purge(2)] == [2, 2, 1, 0]


def test_a_user_is_cut_off_in_no_other_way_than_with_their_sessions():
    """The revocation list has none of these (ADR 0025). `Sessions.end_user` notes them; the rule names the kind
    twice, as one that cuts off, and with its subject."""
    package = Path(tokenserver.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {path: len(re.findall(r"\bKind\.USER\b", text)) for path, text in texts.items()}
    assert {path: times for path, times in found.items() if times} == {
        "tokens/revocation.py": 2,
        "tokens/sessions.py": 1,
    }
