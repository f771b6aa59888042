"""A client's keys in use: RFC 7517 sections 4 and 5, RFC 8725 section 3.1; OpenID Connect Core section 10.1.1."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from threading import Event
from typing import Any

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from tests.assertions import KEYS, public, signed
from tests.listeners import Listener
from tokenserver.clients.keys import MAX_SETS, ClientKeys, InvalidJwt, NoKey
from tokenserver.clients.metadata import SIGNING_ALGS, Metadata
from tokenserver.clients.registry import Client
from tokenserver.config import Settings
from tokenserver.web.fetch import Fetcher

FETCHER = Fetcher(Settings(fetch_private="127.0.0.0/8"), seconds=30)


def client(**metadata: Any) -> Client:
    wanted = Metadata(grant_types=["client_credentials"], token_endpoint_auth_method="private_key_jwt", **metadata)
    return Client(
        client_id="job",
        client_name="",
        client_secret_digest=None,
        client_secret_sealed=None,
        registration_access_token_digest=None,
        grant_types=frozenset(wanted.grant_types),
        response_types=frozenset(),
        scope=frozenset(),
        token_endpoint_auth_method=wanted.token_endpoint_auth_method,
        audience=(),
        first_party=False,
        metadata=wanted,
    )


def inline(*keys: dict[str, Any]) -> Client:
    return client(jwks={"keys": list(keys)})


def answer(*keys: Any, cache: str = "max-age=600") -> bytes:
    body = json.dumps({"keys": keys}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nCache-Control: {cache}\r\n\r\n"
    return head.encode() + body


def jwt(alg: str = "ES256", key: Any = None, **header: Any) -> str:
    claims = {"exp": time.time() + 60}
    return signed({"alg": alg, "kid": alg} | header, claims, key or KEYS[alg], alg)


def without(name: str, jwk: dict[str, Any]) -> dict[str, Any]:
    return {member: value for member, value in jwk.items() if member != name}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> ClientKeys:
    return ClientKeys(FETCHER, monotonic=clock)


def accepts(keys: ClientKeys, owner: Client, token: str, algs: Any = SIGNING_ALGS, typ: Any = None) -> bool:
    try:
        return "exp" in keys.verify(owner, token, algs=algs, typ=typ)
    except InvalidJwt:
        return False


def test_a_key_verifies_what_it_is_for(keys: ClientKeys):
    """Sections 4.2 to 4.5. Without a kid, every key that fits is tried; with one, those that bear it."""
    for alg in KEYS:
        assert accepts(keys, inline(public(alg)), jwt(alg))
        assert accepts(keys, inline(public(alg, alg=alg, use="sig", key_ops=["verify"])), jwt(alg))
        assert accepts(keys, inline(*(public(each) for each in ("EdDSA", "ES256", "RS256"))), jwt(alg, kid=None))
        assert accepts(keys, inline(without("kid", public(alg))), jwt(alg, kid=None))
        for members in ({"use": "enc"}, {"key_ops": ["encrypt"]}, {"kid": "other"}):
            assert not accepts(keys, inline(public(alg, **members)), jwt(alg)), members
        assert not accepts(keys, inline(public(alg)), jwt(alg), algs={"HS256", "none", "ES384"})
    assert not accepts(keys, inline(public("RS256", alg="PS256")), jwt("RS256"))
    assert not accepts(keys, inline(public("ES256")), jwt(key=ECKey.generate_key("P-256")))
    assert not accepts(keys, inline(public("ES256")), jwt(key=ECKey.generate_key("P-256"), kid=None))
    assert not accepts(keys, client(), jwt())


def test_typ_is_the_caller_s_to_choose(keys: ClientKeys):
    """RFC 7515 section 4.1.9; RFC 8725 section 3.11."""
    owner = inline(public("ES256"))
    for typ in ("oauth-authz-req+jwt", "application/OAuth-Authz-Req+JWT"):
        assert accepts(keys, owner, jwt(typ=typ), typ={"oauth-authz-req+jwt"})
        assert accepts(keys, owner, jwt(typ=typ))
        assert not accepts(keys, owner, jwt(typ=typ), typ={"", "jwt"})
    assert accepts(keys, owner, jwt(), typ={"", "jwt"})
    assert not accepts(keys, owner, jwt(), typ={"oauth-authz-req+jwt"})


def test_set_is_read_once_and_again_for_an_unknown_kid(
    keys: ClientKeys, clock: Clock, listen: Callable[..., Listener]
):
    """OpenID Connect Core section 10.1.1; at most once in ten seconds. A key that is gone verifies nothing more."""
    listener = listen(answer(public("ES256"), {"kty": "what"}, 5, public("EdDSA", use="enc")))
    owner = client(jwks_uri=f"http://127.0.0.1:{listener.port}/jwks")
    assert all(accepts(keys, owner, jwt()) for _ in range(5))
    listener.answer = answer(public("RS256"))
    assert not accepts(keys, owner, jwt("RS256"))
    assert accepts(keys, owner, jwt())
    assert len(listener.requests) == 1
    clock.now += 11
    # a wrong signature is no reason to read anew; it would be one for everybody
    assert not accepts(keys, owner, jwt(key=ECKey.generate_key("P-256")))
    assert len(listener.requests) == 1
    assert accepts(keys, owner, jwt("RS256"))
    assert not accepts(keys, owner, jwt())
    assert len(listener.requests) == 2
    assert not any(accepts(keys, owner, jwt(kid=f"k{number}")) for number in range(50))
    assert len(listener.requests) == 2


@pytest.mark.parametrize(
    ("cache", "fresh", "stale"),
    [("max-age=600", 599, 601), ("max-age=0", 59, 61), ("no-store", 59, 61), ("max-age=9999999", 86399, 86401)],
)
def test_age_is_within_bounds(
    keys: ClientKeys, clock: Clock, listen: Callable[..., Listener], cache: str, fresh: float, stale: float
):
    """RFC 9111 section 5.2.2.1: a minute to a day."""
    listener = listen(answer(public("ES256"), cache=cache))
    owner = client(jwks_uri=f"http://127.0.0.1:{listener.port}/")
    started = clock.now
    for at, reads in ((0, 1), (fresh, 1), (stale, 2)):
        clock.now = started + at
        assert accepts(keys, owner, jwt())
        assert len(listener.requests) == reads


def test_old_set_stays_while_there_is_no_new_one(keys: ClientKeys, clock: Clock, listen: Callable[..., Listener]):
    listener = listen(answer(public("ES256")))
    owner = client(jwks_uri=f"http://127.0.0.1:{listener.port}/")
    assert accepts(keys, owner, jwt())
    for bad in (b"HTTP/1.1 503 X\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n[]", b'HTTP/1.1 200 OK\r\n\r\n{"keys":1}'):
        listener.answer = bad
        clock.now += 700
        assert accepts(keys, owner, jwt())
        assert not accepts(keys, owner, jwt("RS256"))
    assert len(listener.requests) == 5
    # with nothing to go on, nothing is accepted, and nobody is asked without end
    other = client(jwks_uri=f"http://127.0.0.1:{listener.port}/other")
    assert not any(accepts(keys, other, jwt()) for _ in range(5))
    assert len(listener.requests) == 6


def test_few_threads_wait_for_sets(listen: Callable[..., Listener]):
    """One reads a set; as many as there are slots wait, whatever the set, and the others go on at once."""

    may_answer = Event()

    def slow(connection: Any) -> None:
        assert may_answer.wait(30)
        connection.sendall(answer(public("ES256")))

    listener = listen(slow)
    keys = ClientKeys(FETCHER, slots=2)
    owner = client(jwks_uri=f"http://127.0.0.1:{listener.port}/")
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(accepts, keys, owner, jwt()) for _ in range(8)]
        refused = [each.result() for each in islice(as_completed(asking, timeout=30), 6)]
        assert refused == [False] * 6
        may_answer.set()
        assert sorted(each.result() for each in asking) == [False] * 6 + [True] * 2
    assert len(listener.requests) == 1


def test_number_of_sets_is_bounded(keys: ClientKeys):
    for number in range(MAX_SETS + 50):
        keys._cached(f"https://c{number}.example/")
    assert len(keys._sets) == MAX_SETS


def test_key_to_encrypt_with(keys: ClientKeys, clock: Clock, listen: Callable[..., Listener]):
    """OIDC Core section 10.2: the client's, for encryption; what it opens, was for the client."""
    rsa, other = RSAKey.generate_key(2048), RSAKey.generate_key(2048)

    def jwk(key: Any, **members: Any) -> dict[str, Any]:
        return dict(key.as_dict(private=False)) | members

    owner = inline(jwk(other, use="sig", kid="s"), jwk(rsa, use="enc", kid="e", alg="RSA-OAEP-256"))
    key = keys.encryption_key(owner, "RSA-OAEP-256")
    assert key.kid == "e"
    sealed = jwe.encrypt_compact({"alg": "RSA-OAEP-256", "enc": "A256GCM"}, b"x", key, algorithms=JWE)
    assert jwe.decrypt_compact(sealed, rsa, algorithms=JWE).plaintext == b"x"
    for curve in ("P-256", "P-384", "P-521"):
        ec = ECKey.generate_key(curve)
        listener = listen(answer(jwk(ec, key_ops=["deriveKey"])))
        key = keys.encryption_key(client(jwks_uri=f"http://127.0.0.1:{listener.port}/"), "ECDH-ES")
        sealed = jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A256GCM"}, b"x", key, algorithms=JWE)
        assert jwe.decrypt_compact(sealed, ec, algorithms=JWE).plaintext == b"x"
    for unfit in ({"use": "sig"}, {"alg": "RSA-OAEP"}, {"key_ops": ["verify"]}):
        with pytest.raises(NoKey):
            keys.encryption_key(inline(jwk(rsa, **unfit)), "RSA-OAEP-256")
    for owner in (inline(jwk(rsa)), client(), client(jwks_uri="http://127.0.0.1:1/")):
        with pytest.raises(NoKey):
            keys.encryption_key(owner, "ECDH-ES")


JWE = ["RSA-OAEP-256", "ECDH-ES", "A256GCM"]
