"""Authlib's clients: its Flask integration, which validates ID tokens by itself, and its session."""

import flask
import pytest
from authlib.integrations.flask_client import OAuth
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

pytestmark = pytest.mark.usefixtures("trusted")

APP = "https://app.example"
CALLBACK = f"{APP}/cb"
HOME = f"{APP}/home"


@pytest.fixture(scope="module")
def ann(provider):
    return provider.user("authlib-ann", name="Ann of Authlib")


@pytest.fixture(scope="module")
def registered(provider):
    return provider.client(
        client_name="A web site with Authlib",
        grant_types=["authorization_code", "refresh_token", "client_credentials"],
        response_types=["code"],
        redirect_uris=[CALLBACK],
        post_logout_redirect_uris=[HOME],
        scope="openid profile email offline_access posts:create tokens:introspect",
    )


@pytest.fixture(scope="module")
def site(provider, registered):
    """A relying party as Authlib's manual writes one."""
    app = flask.Flask("site")
    app.secret_key = "of the site"
    oauth = OAuth(app)
    oauth.register(
        name="server",
        client_id=registered["client_id"],
        client_secret=registered["client_secret"],
        server_metadata_url=f"{provider.issuer}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email offline_access",
            "code_challenge_method": "S256",
        },
    )

    @app.get("/login")
    def login():
        return oauth.server.authorize_redirect(CALLBACK, prompt="consent")

    @app.get("/cb")
    def callback():
        token = oauth.server.authorize_access_token()
        return {"token": token, "claims": token["userinfo"], "userinfo": oauth.server.userinfo(token=token)}

    return app


@pytest.fixture(scope="module")
def signed_in(site, ann):
    browser = site.test_client()
    landing = ann.authorize(browser.get(f"{APP}/login").headers["Location"], CALLBACK)
    response = browser.get(landing.url)
    assert response.status_code == 200, response.text
    return response.json


@pytest.fixture
def session(provider, registered):
    metadata = provider.http.get("/.well-known/openid-configuration").json()
    with OAuth2Session(
        registered["client_id"],
        registered["client_secret"],
        token_endpoint=metadata["token_endpoint"],
        scope="openid profile email offline_access",
    ) as session:
        session.server = metadata
        yield session


def test_signing_in(provider, registered, signed_in):
    claims = signed_in["claims"]
    assert claims["iss"] == provider.issuer
    assert claims["aud"] == registered["client_id"]
    assert claims["nonce"]
    userinfo = signed_in["userinfo"]
    assert userinfo["sub"] == claims["sub"]
    assert userinfo["name"] == "Ann of Authlib"
    assert userinfo["email"] == "authlib-ann@example.org"


def test_refreshing_introspecting_and_revoking(session, signed_in):
    server, old = session.server, signed_in["token"]
    new = session.refresh_token(server["token_endpoint"], old["refresh_token"])
    assert new["access_token"] != old["access_token"]
    assert new["refresh_token"] != old["refresh_token"]

    def active():
        answer = session.introspect_token(server["introspection_endpoint"], new["access_token"])
        return answer.raise_for_status() or answer.json()["active"]

    assert active() is True
    session.revoke_token(server["revocation_endpoint"], new["refresh_token"]).raise_for_status()
    assert active() is False


def test_client_credentials(session):
    session.scope = "posts:create"
    token = session.fetch_token(grant_type="client_credentials")
    assert token["scope"] == "posts:create"
    assert "refresh_token" not in token


def test_private_key_jwt(provider):
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"})
    metadata = provider.client(
        client_name="A job with a key",
        grant_types=["client_credentials"],
        token_endpoint_auth_method="private_key_jwt",
        jwks={"keys": [key.as_dict(private=False)]},
        scope="posts:create",
    )
    endpoint = f"{provider.issuer}/oauth/token"
    with OAuth2Session(
        metadata["client_id"], key, token_endpoint_auth_method="private_key_jwt", token_endpoint=endpoint
    ) as session:
        session.register_client_auth_method(PrivateKeyJWT(endpoint, alg="ES256"))
        token = session.fetch_token(grant_type="client_credentials")
    assert token["token_type"] == "Bearer"
