"""RFC 8693: token exchange, by the policy that is registered with the client that asks."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jwt
import pytest
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api, bearer
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.feed import Kind
from tokenserver.tokens.access_token import new_jti, sign_jwt
from tokenserver.tokens.sessions import EndReason

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ACCESS, JWT = TYPE + "access_token", TYPE + "jwt"
DOWN, DEEP = "https://down.example", "https://deep.example"
BOTH = {"clients": ["app", "gateway", "private"], "impersonation": True, "delegation": True}
Secrets = dict[str, tuple[str, str]]


@pytest.fixture(autouse=True)
def secrets(rooms: Rooms) -> Secrets:
    """An app calls a gateway, which calls a service. The others lack one thing each."""
    rooms.clients.create(
        client_id="app",
        client_name="An app",
        grant_types=["password", "refresh_token"],
        scope=["openid", "posts:create", "users:read", "logs:read"],
        token_endpoint_auth_method="none",
        audience=["gateway", "store"],
    )
    scope = ["openid", "posts:create", "users:read"]
    own = ["client_credentials", EXCHANGE]
    made: dict[str, dict[str, Any]] = {
        "gateway": {"audience": [DOWN, "service"], "token_exchange": BOTH},
        "service": {"audience": [DEEP, "service"], "token_exchange": BOTH | {"clients": ["*"]}},
        "stranger": {"token_exchange": BOTH},  # named by no token's audience
        "store": {"token_exchange": BOTH | {"clients": ["gateway"]}},  # named, but its policy doesn't name the app
        "plain": {},
    }
    for name, metadata in made.items():
        metadata |= {"client_id": name, "client_name": name, "grant_types": own, "scope": scope}
        made[name] = {"auth": (name, str(rooms.clients.create(**metadata)[1]))}
    return {name: each["auth"] for name, each in made.items()}


@pytest.fixture
def ann(api: Api) -> dict[str, Any]:
    """Tokens of Ann at the app."""
    api.register()
    form = {"grant_type": "password", "client_id": "app", "username": "ann", "password": PASSWORD}
    return granted(api.token(**form))


@pytest.fixture
def exchange(api: Api, secrets: Secrets) -> Callable[..., Any]:
    def ask(by: str, subject: str, **form: Any) -> Any:
        form = {"subject_token": subject, "subject_token_type": ACCESS} | form
        form = {name: value for name, value in form.items() if value is not None}
        return api.token(secrets[by], grant_type=EXCHANGE, **form)

    return ask


@pytest.fixture
def own_token(api: Api, secrets: Secrets) -> Callable[[str], str]:
    return lambda name: str(granted(api.token(secrets[name], grant_type="client_credentials"))["access_token"])


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_impersonation(api: Api, rooms: Rooms, exchange: Callable[..., Any], ann: dict[str, Any]):
    """Sections 1.1 and 2.2.1: the same subject, for the caller's own resources, by the caller's name."""
    subject = claims_of(ann["access_token"])
    now = int(time.time())
    answer = granted(exchange("gateway", ann["access_token"]))
    assert answer.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert (answer["issued_token_type"], answer["token_type"]) == (ACCESS, "Bearer")
    issued = claims_of(answer["access_token"])
    same = ("iss", "sub", "sid", "fam", "auth_time", "acr", "amr", "roles")
    assert {name: issued[name] for name in same} == {name: subject[name] for name in same}
    assert (issued["client_id"], issued["aud"]) == ("gateway", [DOWN, "service"])
    assert issued["jti"] != subject["jti"]
    assert issued["exp"] <= subject["exp"]
    assert answer["expires_in"] <= subject["exp"] - now
    assert "act" not in issued
    assert issued["scope"] == answer["scope"] == "openid posts:create"
    narrow = granted(exchange("gateway", ann["access_token"], scope="posts:create", audience="service"))
    assert narrow["scope"] == "posts:create"
    assert claims_of(narrow["access_token"])["aud"] == "service"
    rooms.trail.drain_all()
    log = rooms.database.read(
        lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.client_id == "gateway")).all()
    )
    event = next(event for event in log if event.event == "token:issued")
    assert (event.actor, event.target) == ("gateway", subject["sub"])
    assert event.details == {
        "grant_type": EXCHANGE,
        "scope": "openid posts:create",
        "subject_client": "app",
        "exchange": "impersonation",
    }


def test_delegation(
    api: Api,
    secrets: Secrets,
    exchange: Callable[..., Any],
    own_token: Callable[[str], str],
    ann: dict[str, Any],
):
    """Sections 1.1 and 4.1: the newest actor outside, those before it within; introspection tells them."""
    actor = {"actor_token": own_token("gateway"), "actor_token_type": ACCESS}
    first = granted(exchange("gateway", ann["access_token"], **actor))
    assert claims_of(first["access_token"])["act"] == {"sub": "gateway", "client_id": "gateway"}
    assert claims_of(first["access_token"])["sub"] == claims_of(ann["access_token"])["sub"]
    actor = {"actor_token": own_token("service"), "actor_token_type": JWT}
    second = granted(exchange("service", first["access_token"], **actor))["access_token"]
    chain = {
        "sub": "service",
        "client_id": "service",
        "act": {"sub": "gateway", "client_id": "gateway"},
    }
    assert claims_of(second)["act"] == chain
    assert granted(api.introspect(secrets["service"], second))["act"] == chain
    # Who impersonates hides nobody who acted before.
    third = granted(exchange("service", second))["access_token"]
    assert claims_of(third)["act"] == chain
    for _ in range(3):
        third = granted(exchange("service", third, **actor))["access_token"]
    refused(exchange("service", third, **actor), 400, "invalid_request")
    # The actor token is the caller's own, and says nothing of others.
    for token in (own_token("gateway"), ann["access_token"], second, "x"):
        refused(exchange("service", second, actor_token=token, actor_token_type=ACCESS), 400, "invalid_request")
    for half in ({"actor_token": own_token("service")}, {"actor_token_type": ACCESS}):
        refused(exchange("service", second, **half), 400, "invalid_request")


def test_a_client_s_own_token(
    api: Api, rooms: Rooms, secrets: Secrets, exchange: Callable[..., Any], own_token: Callable[[str], str]
):
    """The subject stays the client that it was; what it may do is that client's, and ends with it."""
    answer = granted(exchange("service", own_token("gateway"), scope="users:read"))
    claims = claims_of(answer["access_token"])
    assert (claims["sub"], claims["client_id"], answer["scope"]) == ("gateway", "service", "users:read")
    assert "sid" not in claims
    assert granted(api.introspect(secrets["service"], answer["access_token"]))["sub"] == "gateway"
    rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "gateway"))
    assert granted(api.introspect(secrets["service"], answer["access_token"])) == {"active": False}
    rooms.clients.create(client_id="gateway", client_name="g", grant_types=["client_credentials"])
    assert granted(api.introspect(secrets["service"], answer["access_token"])) == {"active": False}


def test_who_may_exchange(
    api: Api,
    rooms: Rooms,
    secrets: Secrets,
    exchange: Callable[..., Any],
    own_token: Callable[[str], str],
    ann: Any,
):
    """Sections 2.1 and 2.2.2: an authenticated client, for tokens meant for it, of clients in its policy."""
    token = ann["access_token"]
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS}
    refused(api.token(**form, client_id="app"), 401, "invalid_client")
    refused(api.token(**form, client_id="gateway"), 401, "invalid_client")
    refused(exchange("plain", token), 400, "unauthorized_client")
    refused(exchange("stranger", token), 400, "invalid_request")
    refused(exchange("store", token), 400, "invalid_request")
    mixed: dict[str, Any] = {"impersonation": [False, True], "delegation": [True, False]}
    for flag, (may_impersonate, may_delegate) in mixed.items():
        policy = BOTH | {"impersonation": may_impersonate, "delegation": may_delegate, "clients": ["app"]}
        name = f"only-{flag}"
        _, secret = rooms.clients.create(
            client_id=name,
            client_name=name,
            grant_types=["client_credentials", EXCHANGE],
            scope=["posts:create"],
            token_exchange=policy,
        )
        secrets[name] = name, str(secret)
    refused(exchange("only-impersonation", token), 400, "unauthorized_client")
    actor = {"actor_token": own_token("only-delegation"), "actor_token_type": ACCESS}
    refused(exchange("only-delegation", token, **actor), 400, "unauthorized_client")
    # Denials are recorded, with their cause.
    rooms.trail.drain_all()
    denied = rooms.database.read(
        lambda tx: tx.scalars(select(AuditEvent).where(AuditEvent.event == "token:denied")).all()
    )
    assert {
        ("plain", "no_policy"),
        ("stranger", "not meant for this client"),
        ("store", "the policy doesn't name its client"),
    } <= {(event.client_id, event.details.get("cause")) for event in denied}


def test_what_can_be_exchanged(
    api: Api, rooms: Rooms, exchange: Callable[..., Any], ann: dict[str, Any], confidential: tuple[str, str]
):
    """Sections 2.1 and 2.2.2: good access tokens alone."""
    good = ann["access_token"]
    granted(exchange("gateway", good, subject_token_type=JWT, requested_token_type=JWT))
    for form in (
        {"subject_token_type": None},
        {"subject_token": None},
        {"subject_token_type": TYPE + "refresh_token", "subject_token": ann["refresh_token"]},
        {"subject_token": ann["refresh_token"]},
        {"subject_token_type": TYPE + "id_token", "subject_token": ann["id_token"]},
        {"subject_token": ann["id_token"]},
        {"subject_token_type": TYPE + "saml2"},
        {"subject_token_type": "access_token"},
        {"subject_token": good[:-4] + "AAAA"},
        {"subject_token": "x"},
        {"requested_token_type": TYPE + "refresh_token"},
        {"requested_token_type": TYPE + "id_token"},
        {"requested_token_type": "x"},
    ):
        refused(exchange("gateway", good, **form), 400, "invalid_request")
    for target in ("https://else.example", "gateway", "http://127.0.0.1:8000", f"{DOWN}/"):
        for name in ("audience", "resource"):
            refused(exchange("gateway", good, **{name: target}), 400, "invalid_target")
    both = claims_of(granted(exchange("gateway", good, audience="service", resource=DOWN))["access_token"])
    assert both["aud"] == [DOWN, "service"]
    refused(exchange("gateway", good, audience="service", resource="https://else.example"), 400, "invalid_target")


def test_scope_is_that_of_the_subject_the_client_and_the_user(
    api: Api, exchange: Callable[..., Any], ann: dict[str, Any]
):
    """Section 2.1; RFC 8707 section 2.2: never more, and not by asking."""
    # Ann holds posts:create alone, of what the gateway may ask for; the app may ask for logs:read.
    for scope in ("users:read", "logs:read", "email", "posts:create users:read", "nonsense"):
        refused(exchange("gateway", ann["access_token"], scope=scope), 400, "invalid_scope")
    narrow = granted(exchange("gateway", ann["access_token"], scope="openid"))["access_token"]
    refused(exchange("service", narrow, scope="openid posts:create"), 400, "invalid_scope")
    assert granted(exchange("service", narrow))["scope"] == "openid"
    admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    user_id = claims_of(ann["access_token"])["sub"]
    granted(api.http.put(f"/users/{user_id}/roles", json={"roles": []}, headers=admin))
    assert granted(exchange("gateway", ann["access_token"]))["scope"] == "openid"
    refused(exchange("gateway", ann["access_token"], scope="posts:create"), 400, "invalid_scope")


@pytest.mark.parametrize("what", ["user", "session", "family", "token", "client", "everything"])
def test_ends_with_what_it_came_from(
    api: Api, rooms: Rooms, secrets: Secrets, exchange: Callable[..., Any], ann: dict[str, Any], what: str
):
    """design.md section 2: no way around a revocation, neither before the exchange nor after it (CVE-2026-8922)."""
    issued = granted(exchange("gateway", ann["access_token"]))["access_token"]
    assert granted(api.introspect(secrets["gateway"], issued))["active"]
    claims = claims_of(ann["access_token"])

    def end(tx: Any, change: Any) -> None:
        if what == "user":
            change.note(Kind.USER, claims["sub"])
        elif what == "session":
            rooms.sessions.end(tx, change, session_id=UUID(claims["sid"]), reason=EndReason.LOGOUT)
        elif what == "family":
            rooms.sessions.end(tx, change, family_id=UUID(claims["fam"]), reason=EndReason.REVOKED)
        elif what == "client":
            rooms.sessions.end(tx, change, client_id="app", reason=EndReason.CLIENT_DELETED)
            rooms.clients.delete(tx, change, "app")
        elif what == "everything":
            change.note(Kind.EVERYTHING)
        else:
            change.note(Kind.TOKEN, claims["jti"])

    rooms.feed.change(end)
    refused(exchange("gateway", ann["access_token"]), 400, "invalid_request")
    if what != "token":  # of one token alone the others know nothing; they are gone when it would be
        assert granted(api.introspect(secrets["gateway"], issued)) == {"active": False}
        refused(exchange("service", issued), 400, "invalid_request")


def test_may_act(rooms: Rooms, exchange: Callable[..., Any], own_token: Callable[[str], str], ann: dict[str, Any]):
    """Section 4.4: a token that names who may act is for nobody else."""

    def naming(**may_act: str) -> str:
        claims = claims_of(ann["access_token"]) | {"may_act": may_act, "jti": new_jti(time.time_ns() // 1_000_000)}
        return sign_jwt(rooms.keys.signer("RS256"), "at+jwt", claims)

    actor = {"actor_token": own_token("gateway"), "actor_token_type": ACCESS}
    for may_act in ({"sub": "gateway"}, {"sub": "gateway", "client_id": "gateway"}):
        granted(exchange("gateway", naming(**may_act), **actor))
        granted(exchange("gateway", naming(**may_act)))
    for may_act in (
        {"sub": "service"},
        {"sub": "gateway", "iss": "https://else.example"},
        {"email": "gateway"},
        {},
    ):
        refused(exchange("gateway", naming(**may_act), **actor), 400, "invalid_request")
        refused(exchange("gateway", naming(**may_act)), 400, "invalid_request")


def test_expires_with_the_subject_token(rooms: Rooms, exchange: Callable[..., Any], ann: dict[str, Any]):
    """However often it is exchanged."""
    now = int(time.time())
    claims = claims_of(ann["access_token"]) | {"exp": now + 30}
    nearly_over = sign_jwt(rooms.keys.signer("RS256"), "at+jwt", claims)
    answer = granted(exchange("gateway", nearly_over))
    assert claims_of(answer["access_token"])["exp"] == now + 30
    assert 20 < answer["expires_in"] <= 30
    over = sign_jwt(rooms.keys.signer("RS256"), "at+jwt", claims | {"exp": now - 1})
    refused(exchange("gateway", over), 400, "invalid_request")


def test_pairwise_subjects(
    api: Api, rooms: Rooms, secrets: Secrets, exchange: Callable[..., Any], ann: dict[str, Any]
):
    """OIDC Core section 8: each client knows the user by its own name, through an exchange too."""
    _, secret = rooms.clients.create(
        client_id="private",
        client_name="Private",
        grant_types=["password", EXCHANGE],
        scope=["openid", "posts:create"],
        subject_type="pairwise",
        audience=["private", "gateway"],
        token_exchange=BOTH | {"clients": ["private", "gateway"]},
    )
    secrets["private"] = "private", str(secret)
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
    hers = granted(api.token(secrets["private"], **form))["access_token"]
    public = claims_of(ann["access_token"])["sub"]
    pairwise = claims_of(hers)["sub"]
    assert pairwise != public
    again = granted(exchange("private", hers))["access_token"]
    assert claims_of(again)["sub"] == pairwise
    assert granted(api.introspect(secrets["private"], again))["active"]
    assert claims_of(granted(exchange("gateway", again))["access_token"])["sub"] == public
