"""Pages of a client's own origins call the token, revocation and userinfo endpoints by script (RFC 9700 section
2.6).
"""

import pytest

from tests.conftest import PASSWORD
from tests.hostile.every_endpoint import every_endpoint

pytestmark = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)

PAGE = "https://app.example"
OTHER = "https://other.example"
CALLED = ("/oauth/token", "/oauth/revoke", "/oauth/userinfo")
# What is the same for everybody.
PUBLIC = (
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
    "/openapi.json",
)
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


@pytest.mark.parametrize("path", CALLED)
def test_a_preflight_knows_the_origins_of_all_clients(client, rooms, spa, path):
    for origin in (PAGE, OTHER):
        response = preflight(client, path, origin)
        assert response.status_code == 204
        assert response.headers[ALLOWED] == origin
        assert response.headers[METHODS] == ("GET, POST" if path == "/oauth/userinfo" else "POST")
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


def test_a_person_is_told_to_pages_of_the_token_s_client_alone(client, spa):
    """By a token that was verified; of one that wasn't, nothing is believed (CVE-2026-37977)."""
    token = client.post("/oauth/token", data=spa | {"scope": "openid"}).json["access_token"]

    def ask(origin, token):
        return client.get("/oauth/userinfo", headers={"Origin": origin, "Authorization": f"Bearer {token}"})

    for origin, allowed in ((PAGE, PAGE), (OTHER, None), ("null", None), (f"{PAGE}.evil.example", None)):
        response = ask(origin, token)
        assert response.status_code == 200
        assert response.headers.get(ALLOWED) == allowed
        assert "Origin" in response.headers["Vary"]
    header, payload, signature = token.split(".")
    forged = f"{header}.{payload}.{'A' * len(signature)}"
    assert (ask(PAGE, forged).status_code, ask(PAGE, forged).headers.get(ALLOWED)) == (401, None)
    client.post("/oauth/revoke", data={"client_id": "spa", "token": token})
    # ended, but signed by us: the page is told to get another one
    assert (ask(PAGE, token).status_code, ask(PAGE, token).headers.get(ALLOWED)) == (401, PAGE)


def test_what_everybody_may_read_is_for_every_page(client):
    for path in PUBLIC:
        headers = client.get(path, headers={"Origin": OTHER}).headers
        assert headers[ALLOWED] == "*"
        assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert "public" in headers["Cache-Control"]


def test_nowhere_else(app, client, spa):
    """RFC 9700 section 2.6: the authorization endpoint is for navigation, never for scripts. Nor has any other
    endpoint, whoever adds one, such headers by accident (Flask-CORS CVE-2024-6221 sent one to everybody)."""
    asked = 0
    for path, method in every_endpoint(app):
        if path in {*CALLED, *PUBLIC}:
            continue
        for response in (preflight(client, path, PAGE), client.open(path, method=method, headers={"Origin": PAGE})):
            assert not [name for name, _ in response.headers if name.startswith("Access-Control")], (method, path)
        asked += 1
    assert asked > 50
    assert {path for path, _ in every_endpoint(app)} >= {"/oauth/authorize", *CALLED, *PUBLIC}
