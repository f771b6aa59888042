"""What a request costs once a process is warm, as counts: round trips to Redis, statements of SQL, signatures."""

from uuid import UUID

import pytest

from tests.conftest import PASSWORD, bearer
from tokenserver.access.models import Role, RolePermission
from tokenserver.app import rooms_of
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.signing_key import Signer


@pytest.fixture
def signatures(monkeypatch):
    made = []
    sign = Signer.sign
    monkeypatch.setattr(Signer, "sign", lambda self, data: made.append(1) or sign(self, data))
    return made


@pytest.fixture
def warm(app, api, confidential):
    """Every path was used once, and every bucket of Redis is known."""
    tokens = api.signed_in()
    rooms_of(app).feed.follow()
    api.token(confidential, grant_type="client_credentials")
    api.introspect(confidential, tokens["access_token"])
    api.me(tokens["access_token"])
    return api.refresh(tokens["refresh_token"]).json


def cost(app, round_trips, queries, signatures, request):
    signatures.clear()
    with round_trips() as trips, queries(app) as statements:
        response = request()
    assert response.status_code == 200, response.text
    return trips.count, statements.count, len(signatures)


def test_refresh_costs_one_round_trip_and_no_sql(app, api, warm, round_trips, queries, signatures):
    token = warm["refresh_token"]
    for _ in range(3):
        response = None

        def request(token=token):
            nonlocal response
            response = api.refresh(token)
            return response

        assert cost(app, round_trips, queries, signatures, request) == (1, 0, 1)
        token = response.json["refresh_token"]


def test_refresh_at_the_oauth_endpoint_costs_the_same(app, api, warm, round_trips, queries, signatures):
    form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": warm["refresh_token"]}
    assert cost(app, round_trips, queries, signatures, lambda: api.token(**form)) == (1, 0, 1)


def test_the_replay_within_the_grace_costs_the_same(app, api, warm, round_trips, queries, signatures):
    api.refresh(warm["refresh_token"])
    assert cost(app, round_trips, queries, signatures, lambda: api.refresh(warm["refresh_token"])) == (1, 0, 1)


def test_protected_get_costs_one_round_trip_and_no_sql(app, api, warm, round_trips, queries, signatures):
    assert cost(app, round_trips, queries, signatures, lambda: api.me(warm["access_token"])) == (1, 0, 0)


def test_client_credentials_costs_one_round_trip_and_no_sql(
    app, api, warm, confidential, round_trips, queries, signatures
):
    def request():
        return api.token(confidential, grant_type="client_credentials")

    assert cost(app, round_trips, queries, signatures, request) == (1, 0, 1)


def test_introspection_costs_one_round_trip_and_no_sql(
    app, api, warm, confidential, round_trips, queries, signatures
):
    """One look at the feed tells of the client and of the token."""

    def request():
        return api.introspect(confidential, warm["access_token"])

    assert cost(app, round_trips, queries, signatures, request) == (1, 0, 0)


def test_userinfo_costs_one_round_trip_and_no_sql(app, api, warm, round_trips, queries, signatures):
    form = {"grant_type": "password", "client_id": "first-party", "username": "ann", "password": PASSWORD}
    headers = bearer(api.token(**form, scope="openid email").json["access_token"])
    assert api.http.get("/oauth/userinfo", headers=headers).status_code == 200

    def request():
        return api.http.get("/oauth/userinfo", headers=headers)

    assert cost(app, round_trips, queries, signatures, request) == (1, 0, 0)


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz"])
def test_public_documents_ask_nobody(app, api, round_trips, queries, signatures, path):
    api.http.get(path)
    assert cost(app, round_trips, queries, signatures, lambda: api.http.get(path)) == (0, 0, 0)


def test_a_change_elsewhere_costs_one_look_and_then_nothing(app, apps, api, warm, round_trips, queries, signatures):
    other = rooms_of(apps())
    other.feed.change(lambda tx, change: change.note("token", "somebody's"))
    assert cost(app, round_trips, queries, signatures, lambda: api.me(warm["access_token"])) == (4, 0, 0)
    assert cost(app, round_trips, queries, signatures, lambda: api.me(warm["access_token"])) == (1, 0, 0)


@pytest.mark.parametrize("roles", [1, 30])
def test_effective_permissions_take_two_queries_however_many_roles(app, api, rooms, queries, roles):
    user = api.register()
    names = [f"role-{i}" for i in range(roles)]

    def create(tx, change):
        for name in names:
            permissions = [RolePermission(permission="posts:create")]
            tx.add(Role(name=name, created_at=utc_now(), permissions=permissions))
        tx.flush()
        for name in names:
            rooms.rights.assign(tx, change, UUID(user["id"]), name, granted_by="test")

    rooms.feed.change(create)
    with queries(app) as statements:
        held = rooms.rights.of(UUID(user["id"]))
    assert len(held.roles) == roles + 1
    assert statements.count <= 4  # BEGIN, two reads, and what the driver adds
