"""The Dynamic plan: clients that register themselves, with keys inline and private_key_jwt."""

import json
import time
import uuid
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from joserfc.jwk import RSAKey

from tests.oidc.suite import CALLBACK, ISSUER, KEY, Module, check_error_page, check_refused, check_token_response
from tests.oidc.test_basic import (  # noqa: F401 - they run again here, with this plan's client
    test_oidcc_ensure_request_object_with_redirect_uri,
    test_oidcc_idtoken_unsigned,
    test_oidcc_server,
)
from tests.oidc.test_config import test_oidcc_discovery_endpoint_verification  # noqa: F401
from tests.person import Stuck
from tokenserver.clients.keys import REFETCH_SECONDS
from tokenserver.tokens.key_ring import KeyRing

TYPES = ("code", "code id_token", "id_token")


@pytest.fixture
def module(dynamic):
    return dynamic()


@pytest.fixture
def serve(listen, authority):
    """Serves a JSON document or a JWT by TLS, as the suite does; the listener and its address."""

    def start(body, content_type="application/json"):
        listener = listen(answer(body, content_type), tls=authority.server("127.0.0.1", file="127.0.0.1").context())
        return listener, f"https://127.0.0.1:{listener.port}/{uuid.uuid4().hex}"

    return start


def answer(body, content_type="application/json"):
    text = body if isinstance(body, str) else json.dumps(body)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def public(key):
    return key.as_dict(private=False) | {"use": "sig", "alg": "RS256"}


@pytest.mark.parametrize("response_type", TYPES)
def test_registration_answer(provider, response_type):
    """Of every module: `register` looks at status, type, secret and its end, management URI and its token."""
    client = provider.register(response_type, application_type="web")
    assert client.registration["response_types"] == [response_type]
    assert client.registration["contacts"] == ["certification@oidf.org"]
    assert client.registration["jwks"]["keys"][0]["kid"] == "rp"
    assert "client_secret" not in client.registration
    provider.unregister(client)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_registration_of_a_client_with_a_secret(dynamic, method):
    """`register` looks for client_secret_expires_at."""
    module = dynamic(token_endpoint_auth_method=method, jwks=None)
    assert module.client.registration["client_secret_expires_at"] == 0
    module.signed_in()


@pytest.mark.parametrize("response_type", TYPES)
def test_oidcc_idtoken_rs256(dynamic, response_type):
    module = dynamic(response_type, id_token_signed_response_alg="RS256")
    landing = module.go()
    token = landing.parameters["id_token"] if "id_token" in response_type else module.redeem(landing)["jwt"]
    header = jwt.get_unverified_header(token)
    assert header["alg"] == "RS256"
    assert header["kid"]


def test_oidcc_userinfo_rs256(dynamic):
    module = dynamic(userinfo_signed_response_alg="RS256")
    assert "RS256" in module.provider.discovery["userinfo_signing_alg_values_supported"]
    tokens = module.redeem(module.go())
    response = module.asking_userinfo(tokens["access_token"])
    assert (response.status_code, response.mimetype) == (200, "application/jwt")
    claims = module.provider.verified(response.text, module.client.client_id)
    assert claims["sub"] == tokens["id_token"]["sub"]
    assert (claims["iss"], claims["aud"]) == (ISSUER, module.client.client_id)
    assert "nonce" not in claims


def test_oidcc_ensure_redirect_uri_in_authorization_request(dynamic):
    module = dynamic(redirect_uris=[CALLBACK, CALLBACK + "?dummy1=lorem&dummy2=ipsum"])
    sent = module.request(redirect_uri=None)
    with pytest.raises(Stuck) as stuck:
        module.person.authorize(module.url(sent), CALLBACK)
    check_error_page(stuck.value.page)


def test_one_redirect_uri_alone_is_no_default_either(dynamic):
    module = dynamic()
    with pytest.raises(Stuck) as stuck:
        module.person.authorize(module.url(module.request(redirect_uri=None)), CALLBACK)
    check_error_page(stuck.value.page)


@pytest.mark.parametrize("response_type", TYPES)
def test_oidcc_redirect_uri_query_ok(dynamic, response_type):
    landing = dynamic(response_type, redirect_uris=[CALLBACK + "?bar=foo"]).go()
    assert parse_qsl(urlsplit(landing.url).query)[0] == ("bar", "foo")


def test_oidcc_redirect_uri_query_mismatch(dynamic):
    dynamic(redirect_uris=[CALLBACK + "?foo=bar"]).page(redirect_uri=CALLBACK + "?bar=foo")


def test_oidcc_redirect_uri_query_added(dynamic):
    dynamic().page(redirect_uri=CALLBACK + "?bar=foo")


def test_oidcc_redirect_uri_regfrag(provider):
    check_refused(provider.registering(redirect_uris=[CALLBACK + "#foobar"]), "invalid_redirect_uri")


def login_page(module, **registered):
    """Where the person is asked to sign in."""
    page = module.person.page(module.url(module.request()))
    assert page.form_with("login-submit")
    for name, uri in registered.items():
        assert module.client.registration[name] == uri
    return page


def element(page, element_id):
    return next(part for part in page.text.split("<") if f'id="{element_id}"' in part)


def test_oidcc_registration_logo_uri(dynamic):
    uri = "https://suite.example/logo.png"
    page = login_page(dynamic(logo_uri=uri), logo_uri=uri)
    assert f'src="{uri}"' in element(page, "client-logo")
    assert "img-src 'self' https://suite.example" in page.headers["Content-Security-Policy"]


def test_oidcc_registration_policy_uri(dynamic):
    uri = "https://suite.example/policy"
    page = login_page(dynamic(policy_uri=uri), policy_uri=uri)
    assert f'href="{uri}"' in element(page, "client-policy")


def test_oidcc_registration_tos_uri(dynamic):
    uri = "https://suite.example/tos"
    page = login_page(dynamic(tos_uri=uri), tos_uri=uri)
    assert f'href="{uri}"' in element(page, "client-tos")


def test_oidcc_registration_jwks_uri(dynamic, serve):
    listener, uri = serve({"keys": [public(KEY)]})
    dynamic(jwks=None, jwks_uri=uri).signed_in()
    assert listener.connections >= 1
    assert listener.requests[0].startswith(f"GET {urlsplit(uri).path} ".encode())


def test_oidcc_registration_sector_uri(dynamic, serve):
    uris = [CALLBACK, "https://other.example/callback"]
    listener, uri = serve(uris)
    module = dynamic(redirect_uris=uris, subject_type="pairwise", sector_identifier_uri=uri)
    assert "pairwise" in module.provider.discovery["subject_types_supported"]
    assert listener.connections == 1
    assert module.client.registration["subject_type"] == "pairwise"
    subject = module.signed_in()["id_token"]["sub"]
    # Of one sector one, of another another, and nobody's public one.
    sibling = dynamic(redirect_uris=uris[1:], subject_type="pairwise", sector_identifier_uri=uri)
    public_one = dynamic()
    subjects = [each.signed_in()["id_token"]["sub"] for each in (sibling, public_one)]
    assert [each == subject for each in subjects] == [True, False]


def test_oidcc_registration_sector_bad(provider, serve):
    _, uri = serve(["https://other.example/callback"])
    response = provider.registering(subject_type="pairwise", sector_identifier_uri=uri)
    check_refused(response, "invalid_client_metadata")


def test_oidcc_server_rotate_keys(provide, tmp_path):
    """The new signing key stands beside the old one, and signs. By a ring that is an hour old: a successor that
    verifiers may not know yet is not put to work."""
    KeyRing(tmp_path, jwks_max_age=300, token_lifetime=300, clock=lambda: time.time() - 3600).ensure("RS256")
    provider = provide(keys_dir=tmp_path)
    module = Module(provider, provider.client(), {}, "ann")
    first = module.redeem(module.go())
    before = {key.key_id for key in provider.keys().keys}
    provider.rooms.keys.rotate("RS256")
    after = provider.ask(provider.discovery["jwks_uri"]).json["keys"]
    [fresh] = [key for key in after if key["kid"] not in before]
    assert (fresh["kty"], fresh["use"]) == ("RSA", "sig")
    assert before <= {key["kid"] for key in after}
    # What the old one signed is good still, and what is signed now is by another.
    assert provider.verified(first["jwt"], module.client.client_id)["sub"]
    second = module.signed_in()
    assert jwt.get_unverified_header(second["jwt"])["kid"] != jwt.get_unverified_header(first["jwt"])["kid"]


def test_oidcc_refresh_token(dynamic):
    """Of Basic, with this plan's clients. See `test_basic` for what it looks at beside this."""
    grants = ["authorization_code", "refresh_token"]
    module, other = dynamic(grant_types=grants), dynamic(grant_types=grants)
    scope = "openid offline_access"
    tokens, others = (each.redeem(each.go(scope=scope, prompt="consent")) for each in (module, other))
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "scope": scope}
    refreshed = check_token_response(module.token(**form))
    assert module.userinfo(refreshed["access_token"])["sub"] == tokens["id_token"]["sub"]
    check_refused(module.token(**form | {"refresh_token": others["refresh_token"]}), "invalid_grant")


def test_oidcc_refresh_token_rp_key_rotation(dynamic, serve, monkeypatch):
    """The keys behind jwks_uri change: an unknown kid makes the server read them anew. The suite waits for a minute
    before; ten seconds would do."""
    listener, uri = serve({"keys": [public(KEY)]})
    module = dynamic(jwks=None, jwks_uri=uri, grant_types=["authorization_code", "refresh_token"])
    tokens = module.redeem(module.go(scope="openid offline_access", prompt="consent"))
    key = RSAKey.generate_key(2048, {"kid": "new"})
    listener.answer = answer({"keys": [public(key)]})
    module.client.key = key
    cached = module.provider.rooms.client_keys._sets[uri]
    monkeypatch.setattr(cached, "_clock", lambda: time.monotonic() + REFETCH_SECONDS)
    response = module.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    check_token_response(response)


def test_oidcc_request_uri_unsigned(provider):
    """Skipped by the suite: `none` isn't listed. request_uri itself is offered."""
    assert "none" not in provider.discovery["request_object_signing_alg_values_supported"]
    assert provider.discovery["request_uri_parameter_supported"] is True


@pytest.mark.parametrize("response_type", TYPES)
def test_oidcc_request_uri_signed_rs256(dynamic, serve, response_type):
    """Registered, fetched with a fragment, of type application/jwt, signed; what is inside counts."""
    listener, uri = serve("", "application/jwt")
    uri += "#hash-of-the-content"
    module = dynamic(response_type, request_uris=[uri], request_object_signing_alg="RS256")
    assert "RS256" in module.provider.discovery["request_object_signing_alg_values_supported"]
    now = int(time.time())
    inside = module.request(state="inside", nonce="inside")
    claims = {"iss": module.client.client_id, "aud": ISSUER, "iat": now, "exp": now + 300}
    listener.answer = answer(module.client.signed(inside | claims), "application/jwt")
    landing = module.go(request_uri=uri, inside=inside, state=None, nonce=None)
    assert landing.parameters["state"] == "inside"
    assert listener.connections >= 1
    assert b"#" not in listener.requests[0].partition(b"\r\n")[0]
    if "code" in response_type:
        module.redeem(landing)


def test_oidcc_ensure_client_assertion_with_iss_aud_succeeds(module):
    """The issuer is an audience, and so is the token endpoint, as everywhere else in the suite."""
    for audience in (ISSUER, module.provider.discovery["token_endpoint"]):
        landing = module.go()
        check_token_response(module.redeeming(landing.parameters["code"], audience=audience))


def test_oidcc_3rdparty_init_login(provider, dynamic):
    """Echoed by the registration, and by its management URI."""
    uri = "https://suite.example/login"
    module = dynamic(initiate_login_uri=uri)
    registered = module.client.registration
    assert registered["initiate_login_uri"] == uri
    headers = {"Authorization": f"Bearer {registered['registration_access_token']}"}
    response = provider.ask(registered["registration_client_uri"], headers=headers)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.json["initiate_login_uri"] == uri


def test_oidcc_3rdparty_init_login_http_is_refused(provider):
    response = provider.registering(initiate_login_uri="http://suite.example/login")
    check_refused(response, "invalid_client_metadata")


def test_logout_metadata_is_stored(provider, dynamic):
    """What the logout plans register."""
    prefix = CALLBACK.rpartition("/")[0]
    sent = {
        "post_logout_redirect_uris": [prefix + "/post_logout_redirect"],
        "backchannel_logout_uri": prefix + "/backchannel_logout",
        "backchannel_logout_session_required": True,
        "frontchannel_logout_uri": prefix + "/frontchannel_logout",
        "frontchannel_logout_session_required": True,
    }
    module = dynamic(**sent)
    for name, value in sent.items():
        assert module.client.registration[name] == value
