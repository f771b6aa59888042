"""The metadata (RFC 8414, OIDC Discovery) is true: every member is known here, and each value in it is driven."""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from tests.assertions import KEYS, by_key, by_secret, public
from tests.conftest import ADMIN_PASSWORD, PASSWORD
from tests.oidc.relying_party import relying_party, wait_until
from tests.oidc.suite import CALLBACK, ISSUER, PERSON, Module, Provider, check_token_response
from tests.person import Page, Person
from tokenserver.identity.second_factors import totp

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SIGNED_INTROSPECTION = "application/token-introspection+jwt"
Serve = Callable[[str], str]


@dataclass
class World:
    """`run`: starts a module. `serve`: puts a JWT behind an address."""

    provider: Provider
    run: Callable[..., Module]
    serve: Serve

    def static(self, **metadata: Any) -> Module:
        return self.run(self.provider.client(**metadata))

    def registered(self, **metadata: Any) -> Module:
        return self.run(self.provider.register(**metadata))

    def post(self, endpoint: str, data: dict[str, Any], **options: Any) -> Any:
        return self.provider.ask(self.provider.discovery[endpoint], "POST", data=data, **options)


@pytest.fixture
def world(provider, run, listen, authority):
    def serve(text):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/jwt\r\nContent-Length: {len(text)}\r\n\r\n"
        listener = listen((head + text).encode(), tls=authority.server("127.0.0.1", file="127.0.0.1").context())
        return f"https://127.0.0.1:{listener.port}/request.jwt"

    return World(provider, run, serve)


# Endpoints


def issuer(world, value):
    assert world.static().go().parameters["iss"] == value == ISSUER


def whole_run(world, _value):
    world.static().signed_in()


def introspection_endpoint(world, _value):
    module = world.static()
    tokens = module.signed_in()
    answer = world.post(
        "introspection_endpoint", {"token": tokens["access_token"]}, **module.client.credentials(ISSUER)
    )
    assert answer.json["active"] is True


def revocation_endpoint(world, _value):
    module = world.static()
    token = module.signed_in()["access_token"]
    assert (
        world.post("revocation_endpoint", {"token": token}, **module.client.credentials(ISSUER)).status_code == 200
    )
    assert module.asking_userinfo(token).status_code == 401


def device_authorization_endpoint(world, _value):
    assert grants(world, [DEVICE_CODE]) is None


def end_session_endpoint(world, value):
    module = world.static()
    hint = module.signed_in()["jwt"]
    assert isinstance(module.person.visit(f"{value}?{urlencode({'id_token_hint': hint})}"), Page)
    module.is_signed_out()


def check_session_iframe(world, value):
    answer = world.provider.ask(value)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert world.static().go().parameters["session_state"]


def registration_endpoint(world, _value):
    world.provider.unregister(world.registered().client)


def jwks_uri(world, _value):
    assert world.provider.keys().keys


def revocation_list_uri(world, value):
    answer = world.provider.ask(value)
    assert (answer.status_code, answer.mimetype) == (200, "application/revocation-list+jwt")


# The authorization request


def ui_locales(world, values):
    asked = {value: world.provider.ask(f"/login?ui_locales={value}") for value in values}
    assert {value: answer.headers["Content-Language"] for value, answer in asked.items()} == {
        value: value for value in values
    }
    assert len({answer.text for answer in asked.values()}) == len(values)


def grants(world, values):
    drivers = {
        "authorization_code": lambda: world.static().signed_in(),
        "client_credentials": lambda: _own_token(world, grant_type="client_credentials"),
        "implicit": lambda: world.static().go(response_type="id_token"),
        "password": lambda: _own_token(world, grant_type="password", username="ann", password=PASSWORD),
        "refresh_token": lambda: _refresh(world),
        DEVICE_CODE: lambda: _device(world),
        EXCHANGE: lambda: _exchange(world),
    }
    for value in values:
        assert drivers[value]()


def _own_token(world, **form):
    scope = "posts:create" if form["grant_type"] == "client_credentials" else "openid"
    return check_token_response(
        world.static(grant_types=[form["grant_type"]], response_types=[], redirect_uris=[], scope=[scope]).token(
            scope=scope, **form
        )
    )


def _refresh(world):
    module = world.static()
    tokens = module.redeem(module.go(scope="openid offline_access", prompt="consent"))
    return check_token_response(module.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"]))


def _device(world):
    module = world.static(grant_types=[DEVICE_CODE], response_types=[], redirect_uris=[])
    options = module.client.credentials(ISSUER)
    codes = world.post("device_authorization_endpoint", {"scope": "openid"}, **options).json
    found = module.person.page(codes["verification_uri_complete"])
    for button in ("device-submit", "login-submit", "device-submit", "consent-allow"):
        found = module.person.press(found, button)
        assert isinstance(found, Page)
    return check_token_response(module.token(grant_type=DEVICE_CODE, device_code=codes["device_code"]))


def _exchange(world):
    name = f"gateway-{time.time_ns()}"
    app = world.static(scope=["openid", "posts:create"], audience=[name])
    tokens = app.redeem(app.go(scope="openid posts:create"))
    policy = {"clients": [app.client.client_id], "impersonation": True, "delegation": True}
    gateway = world.static(
        client_id=name, grant_types=["client_credentials", EXCHANGE], response_types=[], redirect_uris=[],
        scope=["openid", "posts:create"], audience=["https://down.example"], token_exchange=policy,
    )  # fmt: skip
    return check_token_response(
        gateway.token(
            grant_type=EXCHANGE,
            subject_token=tokens["access_token"],
            subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        )
    )


def response_types(world, values):
    module = world.static()
    for value in values:
        module.go(response_type=value)  # check_landing: everything that was asked for, and no more
    sent = module.request(response_type="token")
    landing = module.person.authorize(module.url(sent), CALLBACK)
    assert landing.parameters["error"] == "unsupported_response_type"


def response_modes(world, values):
    module = world.static()
    for value in values:
        assert "code" in module.go(response_mode=value).parameters
    sent = module.request(response_mode="query.jwt")
    assert "error" in module.person.authorize(module.url(sent), CALLBACK).parameters


def code_challenge_methods(world, values):
    module, verifier = world.static(), "v" * 43
    challenges = {"S256": urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()}
    for value in values:
        landing = module.go(code_challenge=challenges[value], code_challenge_method=value)
        module.redeem(landing, code_verifier=verifier)
    refused = module.go(code_challenge=verifier, code_challenge_method="plain")
    assert refused.parameters["error"] == "invalid_request"


def prompts(world, values):
    module = world.static()
    assert module.go().pressed == ["login-submit", "consent-allow"]
    buttons = {
        "none": [], "login": ["login-submit"], "select_account": ["login-submit"], "consent": ["consent-allow"]
    }  # fmt: skip
    for value in values:
        landing = module.go(prompt=value)
        assert landing.pressed == buttons[value]
        assert "code" in landing.parameters
    assert module.go(prompt="create").parameters["error"] == "invalid_request"


def scopes(world, values):
    """The admin holds every permission."""
    module = world.static(scope=values)
    module.person = Person.on(world.provider.app.test_client(), ISSUER, "admin", ADMIN_PASSWORD)
    tokens = module.redeem(module.go(scope=" ".join(values), prompt="consent"))
    assert set(tokens["scope"].split()) == set(values)
    assert "refresh_token" in tokens
    assert module.go(scope="openid unlisted").parameters["error"] == "invalid_scope"


def acr_values(world, values):
    """Ann gets a second factor for the higher one."""
    assert values == ["1", "2"]
    assert world.static().signed_in(acr_values="1")["id_token"]["acr"] == "1"
    rooms = world.provider.rooms
    user = rooms.people.find_by_login("ann")
    secret = rooms.database.write(lambda tx: rooms.second_factors.apps.enrol(tx, user.id))
    codes = rooms.second_factors.confirm_app(user.id, totp.hotp(secret, totp.step_at(time.time())))
    try:
        module = world.static()
        module.person.known["otp"] = codes[0]
        assert module.signed_in(acr_values="2")["id_token"]["acr"] == "2"
    finally:
        rooms.database.write(lambda tx: rooms.second_factors.reset(tx, user.id))


def request_objects(world, algs):
    for alg in algs:
        module = world.registered(jwks={"keys": [public(alg)]}, request_object_signing_alg=alg)
        module.client = replace(module.client, key=KEYS[alg])
        inside = module.request(state="inside")
        landing = module.go(request=_object(module, alg, inside), inside=inside, state=None, nonce=None)
        assert landing.parameters["state"] == "inside"


def _object(module, alg, inside):
    claims = {"iss": module.client.client_id, "aud": ISSUER, "exp": int(time.time()) + 60}
    return module.client.signed(inside | claims, alg=alg, kid=alg)


def request_parameter(world, value):
    assert value is True
    request_objects(world, ["RS256"])


def request_uri_parameter(world, value):
    assert value is True
    # The client's id is not known when the address is registered; the object needn't tell it.
    plain = {"scope": "openid", "state": "inside", "nonce": "inside", "redirect_uri": CALLBACK}
    signer = world.static().client
    uri = world.serve(signer.signed(plain))
    module = world.registered(request_uris=[uri])
    assert "code" in module.go(request_uri=uri, inside=plain, state=None, nonce=None).parameters


def require_request_uri_registration(world, value):
    assert value is True
    landing = world.registered().go(request_uri="https://127.0.0.1/unregistered.jwt")
    assert landing.parameters["error"] == "invalid_request_uri"


def iss_parameter(world, value):
    assert value is True
    module = world.static()
    assert module.silently().parameters["iss"] == module.go().parameters["iss"] == ISSUER


# What is told about a person, and how it is signed


def subject_types(world, values):
    assert set(values) == {"public", "pairwise"}
    uris = ("https://one.example/cb", "https://two.example/cb")
    for value in values:
        found = [world.registered(subject_type=value, redirect_uris=[uri]) for uri in uris]
        assert len({each.signed_in()["id_token"]["sub"] for each in found}) == (2 if value == "pairwise" else 1)


def id_token_algs(world, values):
    for value in values:
        module = world.registered(id_token_signed_response_alg=value)
        body = check_token_response(module.redeeming(module.go().parameters["code"]))
        module.id_token(body["id_token"], alg=value)


def id_token_encryption_algs(world, values):
    keys = {"RSA-OAEP-256": RSAKey.generate_key(2048), "ECDH-ES": ECKey.generate_key("P-256")}
    for value in values:
        for enc in world.provider.discovery["id_token_encryption_enc_values_supported"]:
            key = keys[value]
            encrypting = key.as_dict(private=False) | {"kid": "enc", "use": "enc", "alg": value}
            module = world.registered(
                jwks={"keys": [public("RS256", kid="rp"), encrypting]},
                id_token_encrypted_response_alg=value,
                id_token_encrypted_response_enc=enc,
            )
            module.client = replace(module.client, key=KEYS["RS256"])
            landing = module.go()
            body = check_token_response(module.token(
                grant_type="authorization_code", code=landing.parameters["code"], redirect_uri=CALLBACK,
                client_assertion=_assertion(module),
            ))  # fmt: skip
            opened = jwe.decrypt_compact(body["id_token"], key, algorithms=[value, enc])
            assert opened.headers()["enc"] == enc
            assert opened.plaintext is not None
            module.id_token(opened.plaintext.decode())


def _assertion(module):
    now = int(time.time())
    claims = {
        "iss": module.client.client_id,
        "sub": module.client.client_id,
        "aud": ISSUER,
        "jti": str(time.time_ns()),
    }
    return module.client.signed(claims | {"iat": now, "exp": now + 60}, kid="rp")


def userinfo_algs(world, values):
    for value in values:
        module = world.registered(userinfo_signed_response_alg=value)
        token = module.redeem(module.go())["access_token"]
        assert world.provider.verified(module.asking_userinfo(token).text, module.client.client_id, value)["sub"]


def introspection_algs(world, values):
    for value in values:
        world.provider.rooms.keys.ensure(value)
        module = world.static(introspection_signed_response_alg=value)
        token = module.signed_in()["access_token"]
        options = {"headers": {"Accept": SIGNED_INTROSPECTION}} | module.client.credentials(ISSUER)
        answer = world.post("introspection_endpoint", {"token": token}, **options)
        assert answer.mimetype == SIGNED_INTROSPECTION
        claims = world.provider.verified(answer.text, module.client.client_id, value)
        assert claims["token_introspection"]["active"] is True


def claims(world, values):
    module = world.static()
    landing = module.go(response_type="code id_token token", scope="openid profile email address phone")
    told = module.in_front(landing) | module.userinfo(landing.parameters["access_token"])
    assert told.keys() == set(values)


def claim_types(world, values):
    assert values == ["normal"]
    module = world.static()
    told = module.userinfo(module.redeem(module.go(scope="openid profile"))["access_token"])
    assert not told.keys() & {"_claim_names", "_claim_sources"}


def claims_parameter(world, value):
    assert value is True
    module = world.static()
    tokens = module.redeem(module.go(claims='{"userinfo":{"zoneinfo":null},"id_token":{"nickname":null}}'))
    assert module.userinfo(tokens["access_token"])["zoneinfo"] == PERSON["zoneinfo"]
    assert tokens["id_token"]["nickname"] == PERSON["nickname"]


# Client authentication


def auth_methods(endpoint):
    def drive(world, values):
        for value in values:
            client, form, options = _who(world, value)
            assert client
            answer = world.post(endpoint, _question(endpoint) | form, **options)
            assert answer.status_code == 200, (value, answer.text)

    return drive


def auth_algs(endpoint):
    def drive(world, values):
        for value in values:
            make = by_secret if value == "HS256" else by_key
            who = {"client_id": f"{value}-{time.time_ns()}"}
            who |= {} if value == "HS256" else {"alg": value}
            assertor = make(world.provider.rooms, **who)
            answer = world.post(endpoint, _question(endpoint) | assertor.form())
            assert answer.status_code == 200, (value, answer.text)

    return drive


def _question(endpoint):
    return {"grant_type": "client_credentials"} if endpoint == "token_endpoint" else {"token": "unknown"}


def _who(world, method):
    rooms, name = world.provider.rooms, f"auth-{time.time_ns()}"
    if method == "private_key_jwt":
        return name, by_key(rooms, client_id=name).form(), {}
    if method == "client_secret_jwt":
        return name, by_secret(rooms, client_id=name).form(), {}
    grant_types = ["password"] if method == "none" else ["client_credentials"]
    client = world.provider.client(
        client_id=name, grant_types=grant_types, response_types=[], redirect_uris=[],
        scope=["openid", "posts:create"], token_endpoint_auth_method=method,
    )  # fmt: skip
    if method == "none":
        # client_credentials is for confidential clients.
        person = {"username": "ann", "password": PASSWORD, "scope": "openid"}
        form = {"grant_type": "password", "client_id": name, **person}
        return name, form, {}
    options = client.credentials(ISSUER)
    return name, options.pop("data", {}), options


# Logout


def backchannel(world, value):
    assert value is True
    with relying_party() as listening:
        module = world.registered(backchannel_logout_uri=listening.url, backchannel_logout_session_required=True)
        tokens = module.signed_in()
        end_session = world.provider.discovery["end_session_endpoint"]
        module.person.visit(f"{end_session}?{urlencode({'id_token_hint': tokens['jwt']})}")
        deliver = world.provider.rooms.backchannel_logout.deliver
        [received] = wait_until(lambda: listening.received, every=deliver)
    told = world.provider.verified(received.form["logout_token"][0], module.client.client_id)
    assert told["sid"] == tokens["id_token"]["sid"]


def frontchannel(world, value):
    assert value is True
    module = world.registered(
        frontchannel_logout_uri="https://suite.example/gone", frontchannel_logout_session_required=True
    )
    tokens = module.signed_in()
    end_session = world.provider.discovery["end_session_endpoint"]
    page = module.person.page(f"{end_session}?{urlencode({'id_token_hint': tokens['jwt']})}")
    [frame] = page.frames
    assert frame.endswith(urlencode({"iss": ISSUER, "sid": tokens["id_token"]["sid"]}))


MEMBERS = {
    "issuer": issuer,
    "authorization_endpoint": whole_run,
    "token_endpoint": whole_run,
    "userinfo_endpoint": whole_run,
    "introspection_endpoint": introspection_endpoint,
    "revocation_endpoint": revocation_endpoint,
    "device_authorization_endpoint": device_authorization_endpoint,
    "end_session_endpoint": end_session_endpoint,
    "check_session_iframe": check_session_iframe,
    "registration_endpoint": registration_endpoint,
    "jwks_uri": jwks_uri,
    "revocation_list_uri": revocation_list_uri,
    "ui_locales_supported": ui_locales,
    "grant_types_supported": grants,
    "response_types_supported": response_types,
    "response_modes_supported": response_modes,
    "code_challenge_methods_supported": code_challenge_methods,
    "prompt_values_supported": prompts,
    "authorization_response_iss_parameter_supported": iss_parameter,
    "scopes_supported": scopes,
    "subject_types_supported": subject_types,
    "id_token_signing_alg_values_supported": id_token_algs,
    "id_token_encryption_alg_values_supported": id_token_encryption_algs,
    # For each of them, every one of these.
    "id_token_encryption_enc_values_supported": lambda world, values: id_token_encryption_algs(world, ["ECDH-ES"]),
    "userinfo_signing_alg_values_supported": userinfo_algs,
    "introspection_signing_alg_values_supported": introspection_algs,
    "acr_values_supported": acr_values,
    "token_endpoint_auth_methods_supported": auth_methods("token_endpoint"),
    "token_endpoint_auth_signing_alg_values_supported": auth_algs("token_endpoint"),
    "introspection_endpoint_auth_methods_supported": auth_methods("introspection_endpoint"),
    "introspection_endpoint_auth_signing_alg_values_supported": auth_algs("introspection_endpoint"),
    "revocation_endpoint_auth_methods_supported": auth_methods("revocation_endpoint"),
    "revocation_endpoint_auth_signing_alg_values_supported": auth_algs("revocation_endpoint"),
    "claims_supported": claims,
    "claim_types_supported": claim_types,
    "claims_parameter_supported": claims_parameter,
    "request_parameter_supported": request_parameter,
    "request_uri_parameter_supported": request_uri_parameter,
    "require_request_uri_registration": require_request_uri_registration,
    "request_object_signing_alg_values_supported": request_objects,
    "backchannel_logout_supported": backchannel,
    "backchannel_logout_session_supported": backchannel,
    "frontchannel_logout_supported": frontchannel,
    "frontchannel_logout_session_supported": frontchannel,
}


def test_no_member_is_unknown_here(provider):
    assert provider.discovery.keys() == MEMBERS.keys()
    for path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
        assert provider.ask(path).json == provider.discovery


@pytest.mark.parametrize("member", MEMBERS)
def test_every_value_of_a_member_works(world, member):
    value = world.provider.discovery[member]
    assert value or value is False
    MEMBERS[member](world, value)


def test_kinds_of_keys_that_verify_are_those_of_the_algorithms(provider):
    """Whoever reads the JWKS finds a key of each family once a client has registered for it."""
    for alg in provider.discovery["id_token_signing_alg_values_supported"]:
        provider.unregister(provider.register(id_token_signed_response_alg=alg))
    found = {key["alg"]: key["kty"] for key in provider.ask(provider.discovery["jwks_uri"]).json["keys"]}
    assert found == {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
