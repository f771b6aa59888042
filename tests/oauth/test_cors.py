"""Pages of a client's own origins call the token and revocation endpoints by script (RFC 9700 section 2.6)."""

import pytest

from tests.conftest import PASSWORD

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)

PAGE = "https://app.example"
OTHER = "https://other.example"
METHODS = "Access-Control-Allow-Methods"
ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture
def spa(rooms, api):
    for name, uri in (("spa", f"{PAGE}:443/cb"), ("other", f"{OTHER}/cb?x=1"), ("app", "com.example.app:/cb")):
        rooms.clients.create(
            client_id=name,
            client_name=name,
            grant_types=["authorization_code", "password", "refresh_token"],
            response_types=["code"],
            redirect_uris=[uri],
            scope=["openid"],
            token_endpoint_auth_method="none",
        )
    api.register("ann")
    return {"grant_type": "password", "client_id": "spa", "username": "ann", "password": PASSWORD}


def preflight(client, path, origin):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    return client.options(path, headers={"Origin": origin} | asked)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke"])
def test_a_preflight_knows_the_origins_of_all_clients(client, rooms, spa, path):
    for origin in (PAGE, OTHER):
        response = preflight(client, path, origin)
        assert response.status_code == 204
        assert response.headers[ALLOWED] == origin
        assert response.headers[METHODS] == "POST"
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Origin" in response.headers["Vary"]
    for origin in ("null", "http://app.example", f"{PAGE}:444", f"{PAGE}.evil.example", "com.example.app", "*"):
        response = preflight(client, path, origin)
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")], origin
    rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "other"))
    assert ALLOWED not in preflight(client, path, OTHER).headers


def test_an_answer_is_read_by_pages_of_its_own_client_alone(client, spa):
    """Whoever else may pass a preflight: the answer speaks of one client (CVE-2026-37977)."""
    for origin, allowed in ((PAGE, PAGE), (OTHER, None), ("null", None)):
        response = client.post("/oauth/token", data=spa, headers={"Origin": origin})
        assert response.status_code == 200
        assert response.headers.get(ALLOWED) == allowed
        assert "Origin" in response.headers["Vary"]
        # refused, and told why
        refused = client.post("/oauth/token", data=spa | {"password": "wrong"}, headers={"Origin": origin})
        assert refused.status_code == 400
        assert refused.headers.get(ALLOWED) == allowed
    tokens = client.post("/oauth/token", data=spa).json
    form = {"client_id": "spa", "token": tokens["refresh_token"]}
    assert client.post("/oauth/revoke", data=form, headers={"Origin": PAGE}).headers[ALLOWED] == PAGE


def test_a_client_that_did_not_authenticate_has_no_pages(client, confidential, spa):
    form = spa | {"client_id": "nobody"}
    assert ALLOWED not in client.post("/oauth/token", data=form, headers={"Origin": PAGE}).headers


def test_what_everybody_may_read_is_for_every_page(client):
    for path in ("/.well-known/openid-configuration", "/.well-known/jwks.json"):
        assert client.get(path, headers={"Origin": OTHER}).headers[ALLOWED] == "*"


@pytest.mark.parametrize("path", ["/oauth/authorize", "/oauth/introspect", "/users/me", "/admin/stats"])
def test_nowhere_else(client, spa, path):
    """RFC 9700 section 2.6: the authorization endpoint is for navigation, never for scripts."""
    assert ALLOWED not in preflight(client, path, PAGE).headers
    assert ALLOWED not in client.get(path, headers={"Origin": PAGE}).headers
