"""requests-oauthlib, as its manual has it: the clients for web sites, for passwords and for back ends."""

import pytest
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from tests.person import PASSWORD

pytestmark = pytest.mark.usefixtures("trusted")

CALLBACK = "https://app.example/cb"


@pytest.fixture(scope="module")
def ann(provider):
    return provider.user("oauthlib-ann")


@pytest.fixture(scope="module")
def registered(provider):
    return provider.client(
        client_name="A web site with requests-oauthlib",
        grant_types=["authorization_code", "refresh_token", "client_credentials", "password"],
        response_types=["code"],
        redirect_uris=[CALLBACK],
        scope="openid email offline_access posts:create",
    )


@pytest.fixture
def endpoint(provider):
    return f"{provider.issuer}/oauth/token"


def test_a_web_site(provider, ann, registered, endpoint):
    client_id, secret = registered["client_id"], registered["client_secret"]
    scope = ["openid", "email", "offline_access"]
    with OAuth2Session(client_id, redirect_uri=CALLBACK, scope=scope, pkce="S256") as site:
        url, state = site.authorization_url(f"{provider.issuer}/oauth/authorize", prompt="consent")
        landing = ann.authorize(url, CALLBACK)
        assert landing.parameters["state"] == state
        # It checks the state, and that the scope granted is the scope asked for.
        token = site.fetch_token(endpoint, client_secret=secret, authorization_response=landing.url)
        userinfo = site.get(f"{provider.issuer}/oauth/userinfo").json()
        assert userinfo["email"] == "oauthlib-ann@example.org"
        new = site.refresh_token(endpoint, auth=(client_id, secret))
        assert new["refresh_token"] != token["refresh_token"]
        assert site.get(f"{provider.issuer}/oauth/userinfo").json() == userinfo


def test_passwords(provider, ann, registered, endpoint):
    client = LegacyApplicationClient(registered["client_id"], scope=["openid", "posts:create"])
    with OAuth2Session(client=client) as old:
        token = old.fetch_token(
            endpoint, username="oauthlib-ann", password=PASSWORD, client_secret=registered["client_secret"]
        )
        assert set(token["scope"]) == {"openid", "posts:create"}
        assert old.get(f"{provider.issuer}/users/me").json()["username"] == "oauthlib-ann"


def test_a_back_end(provider, registered, endpoint):
    client = BackendApplicationClient(registered["client_id"], scope=["posts:create"])
    with OAuth2Session(client=client) as job:
        token = job.fetch_token(endpoint, client_secret=registered["client_secret"])
    assert token["scope"] == ["posts:create"]
