"""OpenID Connect Back-Channel Logout 1.0: whoever took part in a session is told that it has ended."""

import threading
import time
from datetime import timedelta
from uuid import UUID

import jwt
import pytest
from sqlalchemy import func, select, update

from tests.conftest import ADMIN_PASSWORD, bearer
from tests.live_server import PASSWORD, serving
from tests.oidc.relying_party import relying_party, wait_until
from tests.ports import free_port
from tokenserver.app import create_app, rooms_of
from tokenserver.background import Background
from tokenserver.config import Settings
from tokenserver.oauth import backchannel_logout
from tokenserver.oauth.backchannel_logout import CLAIM_SECONDS, PAUSES
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.models import LogoutDelivery, SessionClient
from tokenserver.tokens.sessions import EndReason

LOOPBACK = "127.0.0.0/8"
one_backend = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def app(apps):
    return apps(fetch_private=LOOPBACK)


@pytest.fixture
def listening():
    with relying_party() as server:
        yield server


def register(rooms, client_id, uri=None, **metadata):
    return rooms.clients.create(
        client_id=client_id,
        client_name=client_id,
        redirect_uris=[f"https://{client_id}.example/cb"],
        grant_types=["authorization_code"],
        response_types=["code"],
        backchannel_logout_uri=uri,
        **metadata,
    )


def joined(rooms, api, *client_ids, login="ann"):
    """Tokens of a new session in which the clients take part, and its id."""
    tokens = api.login(login)
    sid = UUID(rooms.active_tokens.verifier.verify(tokens["access_token"]).sid)
    for client_id in client_ids:
        assert rooms.database.write(lambda tx, client_id=client_id: rooms.sessions.join(tx, sid, client_id))
    return tokens, sid


def end(rooms, **what):
    rooms.feed.change(lambda tx, change: rooms.sessions.end(tx, change, reason=EndReason.REVOKED, **what))


def deliveries(rooms):
    return rooms.database.read(
        lambda tx: list(tx.scalars(select(LogoutDelivery).order_by(LogoutDelivery.created_at)))
    )


def make_due(rooms, **values):
    """As if the pause were over."""
    changed = {"due_at": utc_now()} | values
    rooms.database.write(lambda tx: tx.execute(update(LogoutDelivery).values(changed)))


def settled(rooms, attempts):
    """The only delivery, after so many attempts."""

    def look():
        row = deliveries(rooms)[0]
        claimed = row.due_at - utc_now() <= timedelta(seconds=CLAIM_SECONDS)
        return row if row.attempts == attempts and not claimed else None

    return wait_until(look, every=rooms.backchannel_logout.deliver)


def logged(api, action):
    admin = api.login("admin", ADMIN_PASSWORD)["access_token"]
    answer = api.http.get(f"/admin/logs?limit=100&action={action}", headers=bearer(admin))
    assert answer.status_code == 200
    return answer.json["items"]


def read(app, token, audience, alg="RS256"):
    keys = jwt.PyJWKSet.from_dict(app.test_client().get("/.well-known/jwks.json").json)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(
        token, key, algorithms=[alg], audience=audience, options={"require": ["iss", "aud", "iat", "exp", "jti"]}
    )


def test_logout_token(app, rooms, api, listening):
    """Section 2.4, by an implementation that is not ours; section 2.5: one field of a form."""
    user = api.register()
    rooms.keys.ensure("ES256")
    register(rooms, "shop", listening.url + "/gone?from=op", id_token_signed_response_alg="ES256")
    tokens, sid = joined(rooms, api, "shop")
    api.http.post("/auth/logout", headers=bearer(tokens["access_token"]))
    [row] = deliveries(rooms)
    [received] = wait_until(lambda: listening.received, every=rooms.backchannel_logout.deliver)
    assert (received.path, received.content_type) == ("/gone?from=op", "application/x-www-form-urlencoded")
    assert list(received.form) == ["logout_token"]
    [token] = received.form["logout_token"]
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    claims = read(app, token, "shop", "ES256")
    iat, exp = claims.pop("iat"), claims.pop("exp")
    assert abs(iat - time.time()) < 60
    assert 0 < exp - iat <= 120
    # Nothing else: above all no nonce.
    assert claims == {
        "iss": rooms.settings.issuer,
        "aud": "shop",
        "sub": user["id"],
        "sid": str(sid),
        "jti": str(row.id),
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    }
    wait_until(lambda: not deliveries(rooms))
    [event] = logged(api, "logout:delivered")
    assert (event["client_id"], event["target"], event["details"]) == ("shop", str(sid), {"attempts": 1})
    # RFC 8725 section 3.12: it passes for no token of another kind.
    assert api.me(token).status_code == 401
    assert rooms.active_tokens.any_audience is not None
    assert api.introspect(("backend", "x"), token).status_code == 401


def test_every_end_of_a_session_is_told_and_no_other(app, rooms, api, listening, queries):
    """Section 2.3: whoever took part, and whatever ended it; in the transaction of the end."""
    api.register()
    register(rooms, "shop", listening.url)
    register(rooms, "forum", listening.url)
    register(rooms, "quiet")
    http = api.http

    def logout(tokens, _sid):
        return http.post("/auth/logout", headers=bearer(tokens["access_token"]))

    def revoked_by_the_user(_tokens, sid):
        return http.delete(f"/users/me/sessions/{sid}", headers=bearer(api.login()["access_token"]))

    def password_changed(_tokens, _sid):
        body = {"password": "another horse 8 battery", "current_password": PASSWORD}
        return http.put("/users/me", json=body, headers=bearer(api.login()["access_token"]))

    def disabled_by_an_admin(tokens, _sid):
        user_id = api.me(tokens["access_token"]).json["id"]
        admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
        return http.put(f"/users/{user_id}/status", json={"status": "disabled"}, headers=admin)

    for way in (logout, revoked_by_the_user, password_changed):
        tokens, sid = joined(rooms, api, "shop", "forum", "quiet", "shop")
        assert way(tokens, sid).status_code < 300, way
        assert {(row.session_id, row.client_id) for row in deliveries(rooms)} == {
            (sid, client_id) for client_id in ("shop", "forum", "quiet")
        }, way
        # `quiet` has no place where it could be told.
        wait_until(lambda: not deliveries(rooms), every=rooms.backchannel_logout.deliver)
        if way is password_changed:
            http.put("/users/me", json={"password": PASSWORD, "current_password": "another horse 8 battery"},
                     headers=bearer(api.login("ann", "another horse 8 battery")["access_token"]))  # fmt: skip
    assert len(listening.received) == 6

    # A family's end is not the session's.
    tokens, sid = joined(rooms, api, "shop")
    rooms.feed.change(
        lambda tx, change: rooms.sessions.end(tx, change, client_id="forum", reason=EndReason.REVOKED)
    )
    assert deliveries(rooms) == []
    # Nor is there anything to say where nobody took part.
    other, _ = joined(rooms, api)
    logout(other, None)
    assert deliveries(rooms) == []
    # However many sessions end, the statements are few.
    several = {joined(rooms, api, "shop", "forum")[1] for _ in range(5)} | {sid}
    assert disabled_by_an_admin(tokens, sid).status_code == 200
    assert {row.session_id for row in deliveries(rooms)} == several
    assert len(deliveries(rooms)) == 11


def test_join_once_and_only_what_is_live(app, apps, rooms, api):
    """Two requests of one client at the same moment; and a session that ends meanwhile."""
    api.register()
    register(rooms, "shop")
    _, sid = joined(rooms, api)
    other = rooms_of(apps())
    start = threading.Barrier(2)
    answers = []

    def join(rooms):
        start.wait()
        answers.append(rooms.database.write(lambda tx: rooms.sessions.join(tx, sid, "shop")))

    threads = [threading.Thread(target=join, args=(each,)) for each in (rooms, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True, True]
    count = select(func.count()).select_from(SessionClient)
    assert rooms.database.read(lambda tx: tx.scalar(count)) == 1

    # Who ends a session waits for a join that is under way, and tells whoever joined.
    _, sid = joined(rooms, api)
    ending = threading.Thread(target=end, args=(other,), kwargs={"session_id": sid})

    def join_slowly(tx):
        assert rooms.sessions.join(tx, sid, "shop")
        ending.start()
        time.sleep(0.3)

    rooms.database.write(join_slowly)
    ending.join()
    assert [row.session_id for row in deliveries(rooms)] == [sid]
    assert not rooms.database.write(lambda tx: rooms.sessions.join(tx, sid, "shop"))


@one_backend
def test_told_again_until_it_knows(app, rooms, api, listening, monkeypatch):
    """Section 2.5 leaves it to the OP: down, broken, refusing, slow; with growing pauses, under one `jti`."""
    assert tuple(sorted(PAUSES)) == PAUSES
    pauses = (1000, 2000, 3000)  # none ends before a slow machine has looked
    monkeypatch.setattr(backchannel_logout, "PAUSES", pauses)
    api.register()
    port = free_port()
    register(rooms, "shop", f"http://127.0.0.1:{port}/gone")
    _, sid = joined(rooms, api, "shop")
    end(rooms, session_id=sid)

    # Nobody there.
    assert timedelta(0) < settled(rooms, 1).due_at - utc_now() <= timedelta(seconds=pauses[0])
    with relying_party(port) as shop:
        for attempt, status in ((2, 500), (3, 400)):
            shop.status = status
            make_due(rooms)
            due_at = settled(rooms, attempt).due_at
            pause = pauses[attempt - 1]
            assert timedelta(seconds=pause - 500) < due_at - utc_now() <= timedelta(seconds=pause)
        shop.status = 204
        make_due(rooms)
        wait_until(lambda: not deliveries(rooms), every=rooms.backchannel_logout.deliver)
        tokens = [read(app, each.form["logout_token"][0], "shop") for each in shop.received]
    assert len(tokens) == 3
    assert len({each["jti"] for each in tokens}) == 1
    assert [
        (each["reason"], each["outcome"], each["details"]) for each in reversed(logged(api, "logout:failed"))
    ] == [
        (reason, "failed", {"attempts": attempts, "given_up": False})
        for attempts, reason in enumerate(("unreachable", "status_500", "status_400"), 1)
    ]
    assert [each["details"] for each in logged(api, "logout:delivered")] == [{"attempts": 4}]

    # Nobody for six hours.
    _, sid = joined(rooms, api, "shop")
    end(rooms, session_id=sid)
    make_due(rooms, attempts=9, created_at=utc_now() - timedelta(hours=5, minutes=50))
    wait_until(lambda: not deliveries(rooms), every=rooms.backchannel_logout.deliver)
    assert logged(api, "logout:failed")[0]["details"] == {"attempts": 10, "given_up": True}


@one_backend
def test_nobody_waits_for_who_does_not_answer(app, rooms, api, listening):
    api.register()
    rooms.fetcher.seconds = 60
    with relying_party() as slow:
        slow.may_answer.clear()
        for number in range(3):
            register(rooms, f"slow-{number}", slow.url)
        register(rooms, "shop", listening.url)
        clients = [*(f"slow-{number}" for number in range(3)), "shop"]
        for _ in range(5):
            end(rooms, session_id=joined(rooms, api, *clients)[1])
        wait_until(lambda: len(listening.received) == 5, every=rooms.backchannel_logout.deliver)
        # One at a time for each.
        wait_until(lambda: len(slow.received) >= 3)
        assert len(slow.received) == 3
        slow.may_answer.set()
        wait_until(lambda: not deliveries(rooms), every=rooms.backchannel_logout.deliver)
        assert len(slow.received) == 15


@one_backend
def test_two_processes_tell_each_client_once(app, apps, rooms, api, listening):
    """Whoever claims a delivery has it alone; after a minute it is taken from a process that died."""
    api.register()
    register(rooms, "shop", listening.url)
    listening.slowness = 0.05
    others = [rooms_of(apps(fetch_private=LOOPBACK)) for _ in range(3)]
    for _ in range(8):
        end(rooms, session_id=joined(rooms, api, "shop")[1])

    def all_deliver():
        for each in others:
            each.backchannel_logout.deliver()

    wait_until(lambda: not deliveries(rooms), every=all_deliver)
    jtis = [read(app, each.form["logout_token"][0], "shop")["jti"] for each in listening.received]
    assert len(jtis) == len(set(jtis)) == 8

    end(rooms, session_id=joined(rooms, api, "shop")[1])
    make_due(rooms, attempts=1, due_at=utc_now() + timedelta(seconds=CLAIM_SECONDS))  # claimed, and then died
    others[0].backchannel_logout.deliver()
    time.sleep(0.3)
    assert len(listening.received) == 8
    make_due(rooms)
    wait_until(lambda: not deliveries(rooms), every=all_deliver)
    assert len(listening.received) == 9


@one_backend
def test_another_process_goes_on_when_the_leader_dies(app, apps, rooms, api, listening):
    api.register()
    register(rooms, "shop", listening.url)
    processes = [Background(rooms_of(apps(fetch_private=LOOPBACK))) for _ in range(2)]
    try:
        processes[0].start()
        end(rooms, session_id=joined(rooms, api, "shop")[1])
        wait_until(lambda: len(listening.received) == 1)
        processes[1].start()
        processes[0].stop()
        end(rooms, session_id=joined(rooms, api, "shop")[1])
        wait_until(lambda: len(listening.received) == 2)
    finally:
        for process in processes:
            process.stop()


def test_at_once_and_by_a_server_that_was_killed_in_between():
    """As it is run: two workers. Every process is killed while the client is down."""
    with serving(fetch_private=LOOPBACK, rate_limits="off") as server:
        rooms = rooms_of(create_app(Settings.load(server.environment)))
        with relying_party() as shop:
            port = shop.server_port
            register(rooms, "shop", shop.url)
            server.signed_in("ann")

            def logout():
                tokens = server.post("/auth/login", json={"login": "ann", "password": PASSWORD})
                sid = UUID(rooms.active_tokens.verifier.verify(tokens["access_token"]).sid)
                rooms.database.write(lambda tx: rooms.sessions.join(tx, sid, "shop"))
                end(rooms, session_id=sid)
                return str(sid)

            logout()
            wait_until(lambda: shop.received, seconds=CLAIM_SECONDS / 2)
        sid = logout()
        # It failed, and is due again soon: killed in the midst of an attempt, it would be due in a minute.
        soon = timedelta(seconds=CLAIM_SECONDS / 2)
        wait_until(lambda: [row for row in deliveries(rooms) if row.attempts and row.due_at < utc_now() + soon])
        server.kill()
        with relying_party(port) as shop:
            server.start()
            wait_until(lambda: shop.received, seconds=2 * CLAIM_SECONDS)
            claims = jwt.decode(shop.received[0].form["logout_token"][0], options={"verify_signature": False})
            assert claims["sid"] == sid
        rooms.database.engine.dispose()
        rooms.store.close()


def test_an_emergency_tells_everybody_once(rooms, api):
    """Whoever took part in a session that is live; of an earlier end they know."""
    api.register()
    for client_id in ("one", "two"):
        register(rooms, client_id, f"https://{client_id}.example/logout")
    _, first = joined(rooms, api, "one", "two")
    _, second = joined(rooms, api, "two")
    _, third = joined(rooms, api, "one")
    end(rooms, session_id=third)
    rooms.feed.change(rooms.sessions.end_all)
    told = sorted((str(row.session_id), row.client_id) for row in deliveries(rooms))
    parts = {(first, "one"), (first, "two"), (second, "two"), (third, "one")}
    assert told == sorted((str(session), client) for session, client in parts)
    assert rooms.feed.change(rooms.sessions.end_all) == 0
    assert len(deliveries(rooms)) == 4
