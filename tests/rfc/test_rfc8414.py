"""RFC 8414 and OpenID Connect Discovery: what the server says of itself is so."""

from urllib.parse import urlsplit

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from tests.answers import granted, refused, word
from tests.conftest import PASSWORD, Api, Apps
from tokenserver.rooms import Rooms

PATHS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


def test_issuer_is_the_configured_one_whatever_the_request_says(apps: Apps):
    """Sections 2 and 3.3."""
    client = apps(issuer="https://id.example:8443", trusted_proxies=1).test_client()
    for headers in (
        {},
        {"Host": "evil.example"},
        {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"},
        {"Forwarded": "host=evil.example;proto=http", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "1"},
    ):
        for path in PATHS:
            response = client.get(path, headers=headers)
            body = granted(response)
            assert body["issuer"] == "https://id.example:8443"
            assert "evil" not in response.text + str(response.headers)
            urls = [value for key, value in body.items() if key.endswith(("_endpoint", "_uri"))]
            assert len(urls) >= 4
            assert all(url.startswith("https://id.example:8443/") for url in urls)


def test_both_documents_are_json_for_every_cache_and_every_origin(api: Api):
    """Section 3.2; OIDC Discovery section 4.2."""
    first, second = (api.http.get(path) for path in PATHS)
    assert first.data == second.data
    assert first.mimetype == "application/json"
    assert first.headers["Cache-Control"].startswith("public, max-age=")
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert api.http.get(PATHS[0], headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_metadata_is_valid(api: Api):
    """Section 2, as a client library of the field reads it. It has no issuer on plain http."""
    body = granted(api.http.get(PATHS[1]))
    metadata = AuthorizationServerMetadata(body | {"issuer": body["issuer"].replace("http:", "https:")})
    for name in ("issuer", "grant_types_supported", "scopes_supported"):
        getattr(metadata, f"validate_{name}")()
    if "authorization_endpoint" in body:
        metadata.validate_response_types_supported()
    for name in ("token", "introspection", "revocation"):
        getattr(metadata, f"validate_{name}_endpoint_auth_methods_supported")()
        getattr(metadata, f"validate_{name}_endpoint_auth_signing_alg_values_supported")()
    assert not {value for value in body.values() if value is None}  # section 3.2: nothing empty for "unknown"


def test_endpoints_exist(api: Api):
    """Section 2."""
    body = granted(api.http.get(PATHS[1]))
    for key, url in body.items():
        if key.endswith("_endpoint"):
            assert api.http.post(urlsplit(url).path).status_code in {400, 401}, key
    granted(api.http.get(urlsplit(body["jwks_uri"]).path))
    assert body["token_endpoint"] == f"{body['issuer']}/oauth/token"
    assert body["introspection_endpoint"] == f"{body['issuer']}/oauth/introspect"
    assert body["revocation_endpoint"] == f"{body['issuer']}/oauth/revoke"
    assert body["jwks_uri"] == f"{body['issuer']}/.well-known/jwks.json"


def test_grants_are_those_that_the_token_endpoint_knows(api: Api, confidential: tuple[str, str]):
    """Section 2."""
    listed = set(granted(api.http.get(PATHS[1]))["grant_types_supported"])
    # Of the authorization endpoint alone (RFC 7591 section 2).
    listed.remove("implicit")
    known = {
        "authorization_code",
        "client_credentials",
        "implicit",
        "password",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    }
    for grant_type in known:
        unsupported = word(api.token(confidential, grant_type=grant_type)) == "unsupported_grant_type"
        assert unsupported == (grant_type not in listed), grant_type


def test_authentication_methods_are_those_that_work(api: Api, rooms: Rooms):
    """Section 2; a public client can't introspect."""
    api.register()
    body = granted(api.http.get(PATHS[1]))
    by_secret = {"client_secret_basic", "client_secret_post", "none"}
    by_assertion = {"client_secret_jwt", "private_key_jwt"}  # they work: test_rfc7523
    methods = by_secret | by_assertion
    assert set(body["token_endpoint_auth_methods_supported"]) == methods
    assert set(body["revocation_endpoint_auth_methods_supported"]) == methods
    assert set(body["introspection_endpoint_auth_methods_supported"]) == methods - {"none"}
    for name in ("token", "introspection", "revocation"):
        algs = body[f"{name}_endpoint_auth_signing_alg_values_supported"]
        assert set(algs) == {"RS256", "PS256", "ES256", "EdDSA", "HS256"}
    for method in by_secret:
        row, secret = rooms.clients.create(
            client_id=f"c-{method}",
            client_name=method,
            grant_types=["password"],
            scope=["posts:create"],
            token_endpoint_auth_method=method,
        )
        form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
        auth = (row.client_id, str(secret)) if method == "client_secret_basic" else None
        if method != "client_secret_basic":
            form["client_id"] = row.client_id
        if method == "client_secret_post":
            form["client_secret"] = str(secret)
        granted(api.token(auth, **form))


def test_scopes_listed_are_scopes_known(api: Api, confidential: tuple[str, str]):
    """Section 2: a listed scope may be beyond a client, an unlisted one is beyond all."""
    body = granted(api.http.get(PATHS[1]))
    assert {"openid", "profile", "email", "posts:create", "roles:write"} <= set(body["scopes_supported"])
    granted(api.token(confidential, grant_type="client_credentials", scope="posts:create users:read"))
    refused(api.token(confidential, grant_type="client_credentials", scope="unlisted"), 400, "invalid_scope")


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_rs256_is_there_whatever_the_default(apps: Apps, tmp_path_factory: pytest.TempPathFactory, alg: str):
    """OIDC Discovery section 3, OIDC Core section 15.1."""
    app = apps(signing_alg=alg, keys_dir=tmp_path_factory.mktemp("keys"))
    app.extensions["tokenserver"].ensure_keys()
    body = granted(app.test_client().get(PATHS[0]))
    assert {alg, "RS256"} <= set(body["id_token_signing_alg_values_supported"])
    published = {key["alg"] for key in granted(app.test_client().get("/.well-known/jwks.json"))["keys"]}
    assert {alg, "RS256"} <= published
