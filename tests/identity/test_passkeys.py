"""Passkeys over REST: registered, named, removed; and what makes an answer of an authenticator worth nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select, update

from tests.answers import granted, refused
from tests.authenticator import Authenticator, b64
from tests.conftest import PASSWORD, Api, Apps, bearer
from tests.totp import enrolled
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.identity.login import Proof, Refusal
from tokenserver.identity.second_factors import challenges
from tokenserver.identity.second_factors.models import Passkey, UsedChallenge
from tokenserver.identity.second_factors.relying_party import RelyingParty
from tokenserver.mail.models import QueuedMail
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import utc_now

PATH = "/users/me/second-factors/passkeys"
ORIGIN = "http://localhost"


@pytest.fixture
def app(apps: Apps) -> Flask:
    return apps(issuer=ORIGIN)


@pytest.fixture
def token(api: Api) -> str:
    return str(api.signed_in()["access_token"])


def options(api: Api, token: str, **body: str) -> dict[str, Any]:
    return dict(granted(api.http.post(f"{PATH}/options", json=body, headers=bearer(token)))["options"])


def register(api: Api, token: str, credential: Any, name: str = "My key") -> Any:
    return api.http.post(PATH, json={"name": name, "credential": credential}, headers=bearer(token))


@pytest.fixture
def key(api: Api, token: str) -> Authenticator:
    """Ann's, registered."""
    made = Authenticator(ORIGIN)
    granted(register(api, token, made.create(options(api, token))), 201)
    return made


def prove(rooms: Rooms, key: Authenticator, known: Proof | None = None, **client_data: Any) -> Proof | Refusal:
    asked = rooms.passkeys.request_options("here", known.user.id if known else None)
    assert asked
    return rooms.passkeys.prove(key.get(asked, **client_data), "here", known)


@pytest.mark.parametrize(
    ("issuer", "name", "origin", "is_possible"),
    [
        ("https://id.example", "id.example", "https://id.example", True),
        ("https://id.example:443/", "id.example", "https://id.example", True),
        ("https://id.example:8443/a", "id.example", "https://id.example:8443", True),
        ("http://localhost:8000", "localhost", "http://localhost:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1", "http://127.0.0.1:8000", False),
        ("https://[::1]:8000", "::1", "https://::1:8000", False),
        ("http://id.example", "id.example", "http://id.example", False),
    ],
)
def test_where_passkeys_can_be(issuer: str, name: str, origin: str, is_possible: bool):
    party = RelyingParty(issuer)
    assert (party.id, party.origin, party.is_possible) == (name, origin, is_possible)


def test_registered_named_and_removed(api: Api, token: str):
    asked = options(api, token)
    assert (asked["rp"]["id"], asked["attestation"]) == ("localhost", "none")
    assert asked["authenticatorSelection"]["residentKey"] == "preferred"
    key = Authenticator(ORIGIN)
    added = granted(register(api, token, key.create(asked)), 201)
    assert (added["name"], len(added["recovery_codes"]), added["last_used_at"]) == ("My key", 10, None)
    shown = granted(api.http.get("/users/me/second-factors", headers=bearer(token)))
    assert [each["id"] for each in shown["passkeys"]] == [added["id"]]
    # It counts at once: the password alone is not enough any more, here neither.
    refused(
        api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}), 401, "second_factor_required"
    )
    refused(
        api.http.post(f"{PATH}/options", json={}, headers=bearer(token)), 401, "insufficient_user_authentication"
    )
    body = {"login": "ann", "password": PASSWORD, "otp": added["recovery_codes"][0]}
    strong = granted(api.http.post("/auth/login", json=body))["access_token"]
    (excluded,) = options(api, strong)["excludeCredentials"]
    assert (excluded["id"], excluded["transports"]) == (b64(key.id), ["usb"])
    path = f"{PATH}/{added['id']}"
    renamed = granted(api.http.put(path, json={"name": "Blue key"}, headers=bearer(strong)))
    assert renamed["name"] == "Blue key"
    refused(api.http.delete(path, headers=bearer(token)), 401, "insufficient_user_authentication")
    granted(api.http.delete(path, headers=bearer(strong)), 204)
    refused(api.http.delete(path, headers=bearer(strong)), 404, "passkey_not_found")
    granted(api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}))


def test_somebody_elses_is_not_there(api: Api, rooms: Rooms, token: str, key: Authenticator):
    passkey = rooms.database.read(lambda tx: tx.scalar(select(Passkey.id)))
    other = api.signed_in("bob")["access_token"]
    path = f"{PATH}/{passkey}"
    refused(api.http.put(path, json={"name": "x"}, headers=bearer(other)), 404, "passkey_not_found")
    refused(api.http.delete(path, headers=bearer(other)), 404, "passkey_not_found")
    # The same credential for another account.
    refused(register(api, other, key.create(options(api, other))), 409, "passkey_exists")


def test_no_address_of_a_server_has_passkeys(apps: Apps, api_of: Any):
    api = api_of(apps())
    token = api.signed_in()["access_token"]
    refused(api.http.post(f"{PATH}/options", json={}, headers=bearer(token)), 409, "passkeys_unavailable")


def test_registrations_that_are_none(api: Api, rooms: Rooms, token: str):
    """WebAuthn Level 3 section 7.1."""
    asked, key = options(api, token), Authenticator(ORIGIN)
    good = key.create(asked)
    other = api.signed_in("bob")["access_token"]
    bad = [
        {},
        {"id": "x"},
        good | {"rawId": "AAAA"},
        good | {"response": {}},
        good | {"response": good["response"] | {"attestationObject": "oA"}},
        good | {"response": good["response"] | {"attestationObject": b64(b"\x9b" + b"\xff" * 8)}},
        good | {"response": good["response"] | {"clientDataJSON": "AAAA"}},
        good | {"response": [1]},
        key.create(asked, origin="https://evil.example"),
        key.create(asked, crossOrigin=True),
        key.create(asked, type="webauthn.get"),
        key.create(asked | {"challenge": b64(b"c" * 56)}),
        key.create(asked | {"challenge": ""}),
        key.create(asked | {"rp": {"id": "evil.example"}}),
        key.create(options(api, other)),
    ]
    for credential in bad:
        refused(register(api, token, credential), 403, "invalid_passkey")
    granted(register(api, token, good), 201)
    again = Authenticator(ORIGIN)
    refused(register(api, token, again.create(asked)), 403, "invalid_passkey")  # the challenge was answered


def test_signing_in_with_it_alone_and_beside_the_password(rooms: Rooms, key: Authenticator):
    """RFC 8176 section 2."""
    proof = prove(rooms, key)
    assert isinstance(proof, Proof)
    assert (proof.user.username, proof.amr) == ("ann", ("pop", "user", "mfa"))
    known = rooms.login.authenticate("ann", PASSWORD)
    assert isinstance(known, Proof)
    second = prove(rooms, key, known)
    assert isinstance(second, Proof)
    assert second.amr == ("pwd", "pop", "user", "mfa")


def test_who_is_not_verified_needs_the_password(rooms: Rooms, key: Authenticator):
    key.verifies = False
    assert prove(rooms, key) is Refusal.INVALID_PASSKEY
    known = rooms.login.authenticate("ann", PASSWORD)
    assert isinstance(known, Proof)
    assert isinstance(prove(rooms, key, known), Proof)


def test_assertions_that_are_none(api: Api, rooms: Rooms, key: Authenticator):
    """WebAuthn Level 3 section 7.2."""
    api.register("bob")
    bob = rooms.login.authenticate("bob", PASSWORD)
    assert isinstance(bob, Proof)
    asked = rooms.passkeys.request_options("here")
    assert asked
    good = key.get(asked)
    stranger = Authenticator(ORIGIN, id=key.id, user=key.user)
    nobody = Authenticator(ORIGIN)
    unnamed = good | {"response": {k: v for k, v in good["response"].items() if k != "userHandle"}}
    bad: list[Any] = [
        None,
        {},
        good | {"rawId": "AAAA"},
        good | {"response": good["response"] | {"signature": "AAAA"}},
        good | {"response": good["response"] | {"userHandle": b64(b"b" * 16)}},
        good | {"response": good["response"] | {"userHandle": 1}},
        unnamed,
        stranger.get(asked),
        nobody.get(asked),
        key.get(asked, origin="http://localhost:81"),
        key.get(asked, crossOrigin=True),
        key.get(asked | {"rpId": "evil.example"}),
        key.get(asked | {"challenge": b64(b"c" * 56)}),
    ]
    for credential in bad:
        assert rooms.passkeys.prove(credential, "here") is Refusal.INVALID_PASSKEY, credential
    # Elsewhere, and for somebody else than who has given the password.
    assert rooms.passkeys.prove(good, "there") is Refusal.INVALID_PASSKEY
    assert rooms.passkeys.prove(good, "here", bob) is Refusal.INVALID_PASSKEY
    assert isinstance(rooms.passkeys.prove(key.get(asked), "here"), Proof)


def test_a_challenge_is_good_once_and_not_for_long(
    apps: Apps, rooms: Rooms, key: Authenticator, monkeypatch: pytest.MonkeyPatch
):
    """Section 13.4.3; of many who send the answer at once, to whichever node, one gets in."""
    key.count = None
    nodes = [rooms_of(apps(issuer=ORIGIN)) for _ in range(2)]
    asked = rooms.passkeys.request_options("here")
    assert asked
    answer = key.get(asked)
    with ThreadPoolExecutor(8) as threads:
        proofs = list(threads.map(lambda n: nodes[n % 2].passkeys.prove(answer, "here"), range(12)))
    assert sum(isinstance(proof, Proof) for proof in proofs) == 1
    late = rooms.passkeys.request_options("here")
    assert late
    monkeypatch.setattr(challenges, "LIFETIME", timedelta(0))
    assert rooms.passkeys.prove(key.get(late), "here") is Refusal.INVALID_PASSKEY
    rooms.database.write(
        lambda tx: tx.execute(update(UsedChallenge).values(expires_at=utc_now() - timedelta(seconds=1)))
    )
    assert rooms.challenges.purge() == 2
    assert rooms.challenges.purge() == 0


def test_a_count_that_does_not_rise_betrays_a_copy(rooms: Rooms, key: Authenticator):
    """Section 6.1.1."""
    copy = Authenticator(ORIGIN, count=key.count, id=key.id, key=key.key, user=key.user)
    assert isinstance(prove(rooms, key), Proof)
    assert isinstance(prove(rooms, key), Proof)
    assert prove(rooms, copy) is Refusal.INVALID_PASSKEY
    copy.count = None
    assert prove(rooms, copy) is Refusal.INVALID_PASSKEY
    events = rooms.database.read(
        lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.event == "passkey:copied")).all()
    )
    assert [event.outcome for event in events] == ["denied"] * 2
    assert isinstance(prove(rooms, key), Proof)


def test_a_disabled_user_stays_out(rooms: Rooms, key: Authenticator):
    user = UUID(bytes=key.user)
    rooms.feed.change(lambda tx, change: rooms.people.set_status(tx, change, user, "disabled", rooms.sessions))
    assert prove(rooms, key) is Refusal.ACCOUNT_DISABLED


def test_with_an_app_and_a_passkey_the_codes_go_with_the_last(api: Api, rooms: Rooms, token: str):
    app, codes = enrolled(api, token)
    body = {"login": "ann", "password": PASSWORD, "otp": app.code()}
    strong = granted(api.http.post("/auth/login", json=body))["access_token"]
    added = granted(register(api, strong, Authenticator(ORIGIN).create(options(api, strong))), 201)
    assert added["recovery_codes"] == []
    path = "/users/me/second-factors"
    granted(api.http.delete(f"{path}/totp", headers=bearer(strong)), 204)
    assert granted(api.http.get(path, headers=bearer(strong)))["recovery_codes_left"] == len(codes)
    granted(api.http.delete(f"{PATH}/{added['id']}", headers=bearer(strong)), 204)
    assert granted(api.http.get(path, headers=bearer(strong)))["recovery_codes_left"] == 0
    told = rooms.database.read(lambda tx: tx.scalars(select(QueuedMail).order_by(QueuedMail.created_at)).all())
    factors = [(mail.kind, mail.data["factor"]) for mail in told if "factor" in mail.data]
    assert factors == [
        ("second_factor_added", "an authenticator app"),
        ("second_factor_added", "a passkey"),
        ("second_factor_removed", "an authenticator app"),
        ("second_factor_removed", "a passkey"),
    ]
    assert {mail.recipient for mail in told} == {"ann@example.org"}
