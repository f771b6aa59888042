"""What is said about a person, and to whom (OpenID Connect Core)."""

import json
from typing import Any
from uuid import UUID

import jwt as pyjwt
import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, bearer
from tokenserver.clients.metadata import SIGNING_ALGS
from tokenserver.identity.claims import BY_SCOPE
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.issuing import UserContext
from tokenserver.oauth.requested_claims import parse
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import new_id

CLAIMS = {
    "given_name": "Ann",
    "family_name": "Lee",
    "middle_name": "B",
    "nickname": "annie",
    "profile": "https://example.org/ann",
    "picture": "https://example.org/ann.png",
    "website": "https://ann.example/",
    "gender": "female",
    "birthdate": "0000-02-29",
    "zoneinfo": "Europe/Berlin",
    "locale": "de-CH",
    "phone_number": "+4930123456",
    "address": {"street_address": "Way 1\nHouse", "country": "DE"},
}
SCOPE = "openid profile email address phone"


@pytest.fixture(params=["postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(rooms: Rooms, client_id: str, **metadata: Any) -> tuple[str, str]:
    wanted: dict[str, Any] = {"grant_types": ["password", "refresh_token", "client_credentials"]}
    row, secret = rooms.clients.create(client_id=client_id, **(wanted | {"scope": SCOPE.split()} | metadata))
    return row.client_id, str(secret)


def ask(api: Api, auth: tuple[str, str], scope: str = SCOPE) -> dict[str, Any]:
    return granted(api.token(auth, grant_type="password", username="ann", password=PASSWORD, scope=scope))


def read(api: Api, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, by a stranger's verifier."""
    header = pyjwt.get_unverified_header(token)
    keys = {key["kid"]: key for key in granted(api.http.get("/.well-known/jwks.json"))["keys"]}
    key = pyjwt.PyJWK(keys[header["kid"]])
    return header, pyjwt.decode(token, key.key, [header["alg"]], options={"verify_aud": False})


def userinfo(api: Api, token: str) -> dict[str, Any]:
    return granted(api.http.get("/oauth/userinfo", headers=bearer(token)))


@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_every_algorithm_for_every_kind_of_token(api: Api, rooms: Rooms, alg: str):
    """OIDC Core section 2 and 10.1, RFC 9701: ID token, access token, userinfo and introspection."""
    api.register()
    rooms.keys.ensure(alg)
    names = ("id_token", "access_token", "userinfo", "introspection")
    auth = make(rooms, "algs", **{f"{name}_signed_response_alg": alg for name in names})
    tokens = ask(api, auth)
    header, claims = read(api, tokens["id_token"])
    assert (header["alg"], header["typ"]) == (alg, "JWT")
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid", "at_hash"}
    assert pyjwt.get_unverified_header(tokens["access_token"])["alg"] == alg
    told = api.http.get("/oauth/userinfo", headers=bearer(tokens["access_token"]))
    assert told.mimetype == "application/jwt"
    header, about = read(api, told.text)
    assert (header["alg"], about["aud"], about["sub"]) == (alg, "algs", claims["sub"])
    accept = {"Accept": "application/token-introspection+jwt"}
    data = {"token": tokens["access_token"]}
    found = api.http.post("/oauth/introspect", data=data, auth=auth, headers=accept)
    assert found.mimetype == "application/token-introspection+jwt"
    header, signed = read(api, found.text)
    assert (header["alg"], header["typ"]) == (alg, "token-introspection+jwt")
    assert signed.keys() == {"iss", "aud", "iat", "token_introspection"}
    assert signed["token_introspection"] == granted(api.introspect(auth, tokens["access_token"]))
    again = granted(api.token(auth, grant_type="refresh_token", refresh_token=tokens["refresh_token"]))
    renewed = read(api, again["id_token"])[1]
    assert {n: renewed[n] for n in ("sub", "aud", "auth_time", "sid")} == {
        n: claims[n] for n in ("sub", "aud", "auth_time", "sid")
    }


@pytest.mark.parametrize(
    ("alg", "key"),
    [
        ("RSA-OAEP-256", RSAKey.generate_key(2048, {"kid": "e", "use": "enc"})),
        ("ECDH-ES", ECKey.generate_key("P-256", {"kid": "e", "use": "enc"})),
    ],
)
def test_an_encrypted_id_token_is_for_its_client_alone(api: Api, rooms: Rooms, alg: str, key: RSAKey | ECKey):
    """OIDC Core section 10.2: a signed JWT in a JWE; without a key for it, none at all."""
    api.register()
    registered = {"id_token_encrypted_response_alg": alg, "id_token_encrypted_response_enc": "A256GCM"}
    jwks = {"keys": [key.as_dict(private=False)]}
    auth = make(rooms, "secretive", jwks=jwks, **registered)
    opened = jwe.decrypt_compact(ask(api, auth)["id_token"], key, algorithms=[alg, "A256GCM"])
    assert (opened.headers()["cty"], opened.headers()["kid"]) == ("JWT", "e")
    assert opened.plaintext is not None
    assert read(api, opened.plaintext.decode())[1]["aud"] == "secretive"

    context = UserContext(new_id(), (), new_id(), None, 1, ("pwd",))
    other, _ = make(rooms, "keyless")
    client = rooms.clients.find(other)
    assert client is not None
    for name, value in registered.items():
        object.__setattr__(client.metadata, name, value)
    with pytest.raises(InvalidRequest):
        rooms.collaborators.issuing.for_user(client, context, ["openid"], ["x"])


def test_pairwise_subjects(api: Api, rooms: Rooms):
    """OIDC Core section 8.1: one for each sector; everything knows the user by it, and none tells the user's id."""
    user_id = api.register()["id"]
    sectors = {"one": "https://a.example/x", "two": "https://a.example/y", "three": "https://b.example/x"}
    subs = {}
    for client_id, uri in sectors.items():
        auth = make(rooms, client_id, redirect_uris=[uri], subject_type="pairwise")
        tokens = ask(api, auth)
        access = read(api, tokens["access_token"])[1]
        told = (
            read(api, tokens["id_token"])[1],
            access,
            userinfo(api, tokens["access_token"]),
            granted(api.introspect(auth, tokens["access_token"])),
            granted(api.introspect(auth, tokens["refresh_token"])),
        )
        assert len({each["sub"] for each in told}) == 1
        assert user_id not in json.dumps(told)
        subs[client_id] = access["sub"]
    assert subs["one"] == subs["two"] != subs["three"]

    # The cutoff is the user's, whatever the client calls them.
    rooms.feed.change(
        lambda tx, change: rooms.people.set_status(tx, change, UUID(user_id), "disabled", rooms.sessions)
    )
    refused(api.http.get("/oauth/userinfo", headers=bearer(tokens["access_token"])), 401, "invalid_token")


def test_userinfo_tells_what_the_scope_asks_for(api: Api, rooms: Rooms):
    """OIDC Core sections 5.1, 5.3 and 5.4; 5.3.2: what is not known is left out."""
    me = api.signed_in()
    auth = make(rooms, "reader")
    bare = userinfo(api, ask(api, auth)["access_token"])
    assert bare.keys() == {"sub", "preferred_username", "updated_at", "email", "email_verified"}
    changed = api.http.put("/users/me", json={"name": "Ann Lee"} | CLAIMS, headers=bearer(me["access_token"]))
    assert CLAIMS.items() <= granted(changed).items()
    tokens = ask(api, auth)
    about = userinfo(api, tokens["access_token"])
    assert about.keys() == {"sub", *(name for names in BY_SCOPE.values() for name in names)}
    assert CLAIMS.items() <= about.items()
    assert (about["email_verified"], type(about["updated_at"])) == (False, int)
    assert about["sub"] == read(api, tokens["id_token"])[1]["sub"]
    for scope, names in BY_SCOPE.items():
        narrow = ask(api, auth, f"openid {scope}")["access_token"]
        assert userinfo(api, narrow).keys() == {"sub", *names}


def test_ways_to_present_the_token(api: Api, rooms: Rooms):
    """OIDC Core section 5.3.1, RFC 6750 sections 2 and 3."""
    api.register()
    auth = make(rooms, "reader")
    token = ask(api, auth)["access_token"]
    url, header, form = "/oauth/userinfo", bearer(token), {"access_token": token}
    sub = userinfo(api, token)["sub"]
    assert granted(api.http.post(url, headers=header))["sub"] == sub
    assert granted(api.http.post(url, headers=header, data={}))["sub"] == sub
    answer = api.http.post(url, data=form)
    assert granted(answer)["sub"] == sub
    assert answer.headers["Cache-Control"] == "no-store"
    refused(api.http.post(url, data=form, headers=header), 400, "invalid_request")
    refused(api.http.get(url, query_string=form), 400, "invalid_request")
    assert "error" not in api.http.get(url).headers["WWW-Authenticate"]
    refused(api.http.get(url, headers=bearer("x.y.z")), 401, "invalid_token")
    narrow = ask(api, auth, "profile")["access_token"]
    challenge = refused(api.http.get(url, headers=bearer(narrow)), 403, "insufficient_scope").headers
    assert 'scope="openid"' in challenge["WWW-Authenticate"]
    own = granted(api.token(make(rooms, "itself", scope=["posts:create"]), grant_type="client_credentials"))
    refused(api.http.get(url, headers=bearer(own["access_token"])), 403, "insufficient_scope")


def test_claims_asked_for_by_name(api: Api, rooms: Rooms):
    """OIDC Core sections 5.5 and 3.3.2.11: each where it was asked for; hashes of what goes along."""
    user = rooms.people.find_any(api.register()["id"])
    assert user is not None
    make(rooms, "reader", scope=["openid", "email"])
    client = rooms.clients.find("reader")
    assert client is not None
    asked = {
        "userinfo": {"email": {"essential": True}, "nickname": None, "unknown": None},
        "id_token": {"email_verified": None, "acr": {"essential": True, "values": ["2"]}, "sub": {"value": "s"}},
    }
    found = parse(json.dumps(asked), client)
    assert found.names == {"userinfo": ["email"], "id_token": ["email_verified"]}
    assert (found.acr_values, found.acr_essential, found.sub) == (("2",), True, "s")
    for malformed in (
        "x",
        "[]",
        '{"id_token": 1}',
        '{"userinfo": {"email": 1}}',
        '{"id_token": {"acr": {"value": 2}}}',
    ):
        with pytest.raises(InvalidRequest):
            parse(malformed, client)

    issuing = rooms.collaborators.issuing
    context = UserContext(user.id, (), new_id(), new_id(), 1, ("pwd",), found.names)

    def front(*response_type: str) -> dict[str, Any]:
        return issuing.front_channel(
            client, context, ["openid", "email"], ["x"], response_type=response_type, nonce="n", code="c"
        )

    both = front("code", "id_token", "token")
    claims = read(api, both["id_token"])[1]
    assert (claims["nonce"], "email" in claims, claims["email_verified"]) == ("n", False, False)
    assert {"at_hash", "c_hash"} <= claims.keys()
    assert read(api, both["access_token"])[1]["uic"] == ["email"]
    assert read(api, front("id_token")["id_token"])[1]["email"] == "ann@example.org"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("given_name", ["", "  ", "null", "a\u0000", "x" * 201]),
        ("website", ["ftp://a.example", "javascript:alert(1)", "https://u:p@a.example", "https://", "https://a b"]),
        ("birthdate", ["2000-13-01", "1849", "9999", "0000", "2023-02-29", "1.1.2000"]),
        ("zoneinfo", ["Mars/Base", "../etc"]),
        ("locale", ["de_CH", "d", "german language"]),
        ("phone_number", ["030 123", "+0123456789", "+49", "+491234567890123456"]),
        ("address", [{}, {"country": " "}, {"planet": "Mars"}, "Way 1"]),
    ],
)
def test_what_a_claim_may_not_be(api: Api, name: str, wrong: list[Any]):
    """OIDC Core section 5.1."""
    token = bearer(api.signed_in()["access_token"])
    for value in wrong:
        assert api.http.put("/users/me", json={name: value}, headers=token).status_code in {400, 422}, value
    assert name not in granted(api.http.get("/users/me", headers=token))
