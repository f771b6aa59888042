"""RFC 7591, RFC 7592, OpenID Connect Dynamic Client Registration: clients that register and manage themselves."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from sqlalchemy import select

from tests.answers import faults, granted, refused
from tests.conftest import Api, Apps, bearer
from tests.listeners import Listener, listen
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.clients.metadata import STANDARD_SCOPES, TOKEN_EXCHANGE, Metadata
from tokenserver.clients.models import ClientRow
from tokenserver.clients.registry import BUILTIN
from tokenserver.rooms import Rooms

__all__ = ["listen"]

URI = "https://app.example/cb"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
JWKS = {"keys": [KEY.as_dict(private=False)]}


@pytest.fixture
def token(rooms: Rooms) -> str:
    return invitation(rooms)


def invitation(rooms: Rooms, uses: int | None = None, lifetime: int = 60) -> str:
    return rooms.initial_access_tokens.invite(note="", uses=uses, lifetime=lifetime, created_by="cli")[1]


def register(api: Api, token: str | None, **metadata: Any) -> Any:
    headers = bearer(token) if token else {}
    return api.http.post("/oauth/register", json={"redirect_uris": [URI]} | metadata, headers=headers)


def manage(api: Api, created: dict[str, Any], method: str = "GET", **options: Any) -> Any:
    path = created["registration_client_uri"].partition("/oauth/")[2]
    headers = bearer(options.pop("token", None) or created["registration_access_token"])
    return api.http.open(f"/oauth/{path}", method=method, headers=headers, **options)


def registered(rooms: Rooms) -> int:
    return len(rooms.clients.list()) - len(BUILTIN)


def test_answer_holds_everything_that_was_registered(api: Api, rooms: Rooms, token: str):
    """RFC 7591 section 3.2.1; OIDC Registration section 3.2: defaults too, and nothing that isn't set."""
    response = register(api, token, client_name="App", nonsense=1, **{"client_name#de": "Anwendung"}, logo_uri=None)
    body = granted(response, 201)
    assert (response.mimetype, response.headers["Cache-Control"]) == ("application/json", "no-store")
    assert body["client_secret"].startswith("cs_")
    assert body["client_secret_expires_at"] == 0
    assert body["registration_client_uri"] == f"{rooms.settings.issuer}/oauth/register/{body['client_id']}"
    assert body["registration_access_token"].startswith("rat_")
    assert isinstance(body["client_id_issued_at"], int)
    assert (body["grant_types"], body["response_types"]) == (["authorization_code"], ["code"])
    assert (body["token_endpoint_auth_method"], body["application_type"]) == ("client_secret_basic", "web")
    assert set(body["scope"].split()) == STANDARD_SCOPES
    assert body.keys().isdisjoint(
        {"nonsense", "client_name#de", "logo_uri", "first_party", "audience", "created_at"}
    )
    kept = rooms.database.read(lambda tx: tx.scalars(select(ClientRow)).all())
    stored = repr([{c.key: getattr(row, c.key) for c in row.__mapper__.column_attrs} for row in kept])
    assert body["client_secret"] not in stored
    assert body["registration_access_token"] not in stored
    # It works at once.
    auth = (body["client_id"], body["client_secret"])
    refused(api.token(auth, grant_type="authorization_code", code="x"), 400, "invalid_grant")


def test_what_a_conformance_suite_registers(api: Api, token: str):
    """OIDC Registration section 2: private_key_jwt with keys by value, logout, algorithms."""
    wanted = {
        "client_name": "suite",
        "grant_types": ["authorization_code", "implicit", "refresh_token"],
        "response_types": ["code", "id_token token", "code token id_token"],
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": JWKS,
        "contacts": ["certification@oidf.example"],
        "id_token_signed_response_alg": "RS256",
        "userinfo_signed_response_alg": "RS256",
        "subject_type": "pairwise",
        "request_uris": ["https://app.example/request.jwt#digest"],
        "post_logout_redirect_uris": ["https://app.example/post_logout_redirect"],
        "backchannel_logout_uri": "https://app.example/backchannel_logout",
        "backchannel_logout_session_required": True,
        "frontchannel_logout_uri": "https://app.example/frontchannel_logout",
        "frontchannel_logout_session_required": True,
        "initiate_login_uri": "https://app.example/login",
        "default_max_age": 3600,
        "require_auth_time": True,
    }
    body = granted(register(api, token, **wanted), 201)
    assert body["response_types"] == [
        "code",
        "code id_token token",
        "id_token token",
    ]  # in the spelling that is kept
    assert {name: body[name] for name in wanted} == wanted | {"response_types": body["response_types"]}
    assert "client_secret" not in body
    assert granted(manage(api, body)) == body


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"redirect_uris": ["https://app.example/cb#fragment"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://app.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://localhost:80@evil.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["JaVaScRiPt:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "x"}, "invalid_redirect_uri"),
        ({"initiate_login_uri": "http://app.example/login"}, "invalid_client_metadata"),
        ({"logo_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"policy_uri": "data:text/html,x"}, "invalid_client_metadata"),
        ({"response_types": ["id_token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"jwks": JWKS, "jwks_uri": "https://app.example/jwks"}, "invalid_client_metadata"),
        ({"jwks": {"keys": [KEY.as_dict(private=True)]}}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "HS256"}, "invalid_client_metadata"),
        ({"id_token_encrypted_response_enc": "A256GCM"}, "invalid_client_metadata"),
        ({"frontchannel_logout_uri": "https://other.example/"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "http://app.example/"}, "invalid_client_metadata"),
        ({"scope": "openid tokens:introspect"}, "invalid_client_metadata"),
        ({"grant_types": ["password"]}, "invalid_client_metadata"),
        ({"grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"]}, "invalid_client_metadata"),
        ({"client_name": 'x\n"'}, "invalid_client_metadata"),
        ({"default_max_age": "1"}, "invalid_client_metadata"),
        ({"software_statement": "eyJ"}, "unapproved_software_statement"),
        ({"redirect_uris": [URI, "https://x.example/"], "subject_type": "pairwise"}, "invalid_client_metadata"),
    ],
)
def test_what_can_t_be_registered(api: Api, rooms: Rooms, token: str, wrong: dict[str, Any], error: str):
    """RFC 7591 section 3.2.2; PYSEC-2026-4354, Keycloak CVE-2026-9086. The members that are wrong are named."""
    response = refused(register(api, token, **wrong), 400, error)
    assert error == "unapproved_software_statement" or next(iter(wrong)) in response.json["error_description"]
    assert registered(rooms) == 0


def test_bodies_that_are_no_metadata(api: Api, token: str):
    headers = bearer(token)
    for data in (b"", b"{", b"[]", b"null", b'{"redirect_uris": "\\ud800"}', b'{"a": 1, "a": 2}', b"[" * 5000):
        response = api.http.post("/oauth/register", data=data, content_type="application/json", headers=headers)
        refused(response, 400, "invalid_request")
    response = api.http.post("/oauth/register", data={"redirect_uris": URI}, headers=headers)
    refused(response, 415, "invalid_request")
    response = api.http.post("/oauth/register", json={"x": "x" * 70_000}, headers=headers)
    refused(response, 413, "invalid_request")


def test_an_invitation_is_needed_and_bounded(api: Api, rooms: Rooms):
    """RFC 7591 section 3; RFC 6750 section 3."""
    assert "error=" not in register(api, None).headers["WWW-Authenticate"]
    for wrong in ("iat_x", api.signed_in()["access_token"], invitation(rooms, lifetime=0)):
        refused(register(api, wrong), 401, "invalid_token")
    once = invitation(rooms, uses=1)
    refused(register(api, once, redirect_uris=["x"]), 400, "invalid_redirect_uri")  # uses up nothing
    granted(register(api, once), 201)
    refused(register(api, once), 401, "invalid_token")
    assert registered(rooms) == 1


def test_the_last_use_is_one_use(apps: Apps):
    app = apps()
    once = invitation(rooms_of(app), uses=1)
    clients = [Api(app.test_client()) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda api: register(api, once).status_code, clients))
    assert statuses == [201] + [401] * 7


def test_open_and_closed(apps: Apps):
    """TOKENSERVER_CLIENT_REGISTRATION."""
    open_, closed = apps(client_registration="open"), apps(client_registration="closed")
    body = granted(register(Api(open_.test_client()), None), 201)
    refused(register(Api(open_.test_client()), "iat_wrong"), 401, "invalid_token")
    refused(register(Api(closed.test_client()), None), 403, "access_denied")
    assert granted(manage(Api(closed.test_client()), body))["client_id"] == body["client_id"]
    metadata = "/.well-known/openid-configuration"
    assert "registration_endpoint" in open_.test_client().get(metadata).json
    assert "registration_endpoint" not in closed.test_client().get(metadata).json


def test_who_may_register_what(apps: Apps):
    """Whom nobody invited gets no permission to ask for, and no token of their own; nobody gets to skip consent."""
    app = apps(client_registration="open")
    api, rooms = Api(app.test_client()), rooms_of(app)
    mine = {"grant_types": ["client_credentials"], "scope": "openid"}
    powerful = mine | {"scope": "roles:write"}
    for token, wrong in ((None, mine), (None, powerful), (invitation(rooms), powerful)):
        refused(register(api, token, **wrong), 400, "invalid_client_metadata")
    refused(register(api, None, scope="openid posts:create"), 400, "invalid_client_metadata")
    invited = granted(register(api, invitation(rooms), **mine), 201)
    auth = (invited["client_id"], invited["client_secret"])
    assert granted(api.token(auth, grant_type="client_credentials"))["scope"] == ""
    granted(register(api, invitation(rooms), scope="openid roles:write"), 201)  # bounded by its users
    body = granted(register(api, None, first_party=True, audience=["x"], token_exchange={"clients": ["*"]}), 201)
    client = rooms.clients.find(body["client_id"])
    assert client is not None
    assert (client.first_party, client.audience, client.metadata.token_exchange) == (False, (), None)
    # Managing itself doesn't get it further.
    wanted = {"client_id": body["client_id"], "redirect_uris": [URI]}
    for more in (mine, {"scope": "openid posts:create"}, {"grant_types": ["password"]}):
        refused(manage(api, body, "PUT", json=wanted | more), 400, "invalid_client_metadata")
    wanted = {"client_id": invited["client_id"], **mine, "client_name": "renamed"}
    assert granted(manage(api, invited, "PUT", json=wanted))["client_name"] == "renamed"
    refused(manage(api, invited, "PUT", json=wanted | {"scope": "roles:write"}), 400, "invalid_client_metadata")


def test_what_an_admin_decided_stays_when_a_client_replaces_its_metadata(api: Api, rooms: Rooms, token: str):
    """RFC 7592 section 2.2: all is replaced, but for what was never the client's to decide."""
    body = granted(register(api, token), 201)
    client_id = body["client_id"]
    policy = {"clients": ["*"], "impersonation": False, "delegation": True}
    decided = {"audience": ["urn:elsewhere"], "scope": ["posts:create"], "token_exchange": policy}
    grants = ["authorization_code", "client_credentials", TOKEN_EXCHANGE]
    wanted = Metadata(redirect_uris=[URI], grant_types=grants, **decided)  # type: ignore[arg-type]
    rooms.feed.change(lambda tx, change: rooms.clients.update(tx, change, client_id, wanted))
    update = {"client_id": client_id, "redirect_uris": [URI], "grant_types": grants, "scope": "posts:create"}
    granted(manage(api, body, "PUT", json=update))
    client = rooms.clients.find(client_id)
    assert client is not None
    assert (client.audience, client.metadata.token_exchange) == (("urn:elsewhere",), policy)
    refused(
        manage(api, body, "PUT", json=update | {"scope": "posts:create roles:write"}),
        400,
        "invalid_client_metadata",
    )
    granted(manage(api, body, "PUT", json=update | {"grant_types": ["authorization_code"]}))
    client = rooms.clients.find(client_id)
    assert client is not None
    assert (client.audience, client.metadata.token_exchange) == (("urn:elsewhere",), None)


def test_managing_oneself(api: Api, rooms: Rooms, token: str):
    """RFC 7592 sections 2.1 to 2.3; OIDC conformance: DELETE answers 204."""
    body = granted(register(api, token, client_name="Before", contacts=["a@b.example"]), 201)
    secretless = {name: value for name, value in body.items() if not name.startswith("client_secret")}
    assert granted(manage(api, body)) == secretless
    update = {"client_id": body["client_id"], "client_secret": body["client_secret"], "redirect_uris": [URI + "2"]}
    after = granted(manage(api, body, "PUT", json=update))
    assert (after["redirect_uris"], after["client_name"]) == ([URI + "2"], "")  # all of it is replaced
    assert "contacts" not in after or after["contacts"] == []
    for wrong in (
        update | {"client_id": "other"},
        {"redirect_uris": [URI]},
        update | {"client_secret": "wrong"},
        update | {"client_secret": None},
        update | {"registration_access_token": body["registration_access_token"]},
        update | {"client_id_issued_at": 1},
        update | {"redirect_uris": []},
    ):
        response = manage(api, body, "PUT", json=wrong)
        assert response.status_code == 400, wrong
        assert not faults(response)
    assert granted(manage(api, body)) == after
    response = manage(api, body, "DELETE")
    assert (response.status_code, response.data) == (204, b"")
    refused(manage(api, body), 401, "invalid_token")
    refused(api.token((body["client_id"], body["client_secret"]), grant_type="x"), 400, "unsupported_grant_type")
    auth = (body["client_id"], body["client_secret"])
    refused(api.token(auth, grant_type="authorization_code", code="x"), 401, "invalid_client")


def test_a_registration_access_token_is_for_one_client(api: Api, rooms: Rooms, token: str):
    """CVE-2026-116672: the token of one client does nothing to another, nor to one that an admin registered."""
    one, two = (granted(register(api, token), 201) for _ in range(2))
    rooms.clients.create(client_id="admins", grant_types=["client_credentials"])
    admins = {"registration_client_uri": "x/oauth/register/admins"}
    for target in (two, admins, {"registration_client_uri": "x/oauth/register/first-party"}):
        for wrong in (one["registration_access_token"], token, "rat_", "x"):
            for method in ("GET", "PUT", "DELETE"):
                body = {"client_id": "x", "redirect_uris": [URI]} if method == "PUT" else None
                refused(manage(api, target, method, token=wrong, json=body), 401, "invalid_token")
    assert registered(rooms) == 3


def test_registering_is_recorded(api: Api, rooms: Rooms, token: str):
    body = granted(register(api, token), 201)
    manage(api, body, "DELETE")
    rows = rooms.database.read(lambda tx: tx.scalars(select(AuditEvent).order_by(AuditEvent.at)).all())
    (invited,) = [row for row in rows if row.event == "initial_access_token:created"]
    found = {row.event: row.actor for row in rows if row.target == body["client_id"]}
    assert found == {"client:created": invited.target, "client:deleted": body["client_id"]}
    told = json.dumps([row.details for row in rows])
    for secret in (token, body["client_secret"], body["registration_access_token"]):
        assert secret not in told


def test_addresses_are_kept_and_not_asked(apps: Apps, listen: Callable[..., Listener]):
    """Spring CVE-2026-59354: what is registered is no reason to fetch it, but for the sector's document."""
    app = apps(fetch_private="127.0.0.0/8")
    api, rooms = Api(app.test_client()), rooms_of(app)
    listener = listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    address = f"http://127.0.0.1:{listener.port}/"
    names = ("client_uri", "logo_uri", "policy_uri", "tos_uri", "jwks_uri", "backchannel_logout_uri")
    granted(register(api, invitation(rooms), **dict.fromkeys(names, address), request_uris=[address]), 201)
    assert listener.connections == 0
    # OIDC Registration section 5: it must list all of the redirect_uris.
    wanted = {
        "subject_type": "pairwise",
        "sector_identifier_uri": address,
        "redirect_uris": [URI, "https://b.example/"],
    }
    response = refused(register(api, invitation(rooms), **wanted), 400, "invalid_client_metadata")
    assert "sector_identifier_uri" in response.json["error_description"]
    text = json.dumps([*wanted["redirect_uris"], "https://more.example/"])
    listener.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
    granted(register(api, invitation(rooms), **wanted), 201)
    assert listener.connections == 2


def test_registering_is_limited(api: Api, token: str):
    """OWASP ASVS 2.4.1 (N17)."""
    statuses = [register(api, token, redirect_uris=[]).status_code for _ in range(102)]
    assert statuses.count(429) >= 1
