"""A client's public keys: RFC 7517 sections 4 and 5, RFC 7518 section 6, RFC 8037 section 2."""

from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tokenserver.clients import jwks

RSA = RSAKey.generate_key(2048, auto_kid=True)
EC = {curve: ECKey.generate_key(curve, auto_kid=True) for curve in ("P-256", "P-384", "P-521", "secp256k1")}
OKP = {curve: OKPKey.generate_key(curve, auto_kid=True) for curve in ("Ed25519", "X25519", "Ed448")}


def public(key: Any, **members: Any) -> dict[str, Any]:
    return dict(key.as_dict(private=False)) | members


GOOD = [
    public(RSA, alg="RS256", use="sig"),
    *(public(EC[c]) for c in ("P-256", "P-384", "P-521")),
    public(OKP["Ed25519"]),
]
EC256 = public(EC["P-256"])


def fields(*keys: Any) -> list[str]:
    return [fault.field for fault in jwks.faults({"keys": list(keys)})]


def test_good_keys_are_kept_with_what_is_understood_of_them():
    given = {"keys": [key | {"x5u": "https://x", "more": [1.5, {}]} for key in GOOD], "more": float("nan")}
    assert jwks.faults(given) == []
    assert jwks.understood(given) == {"keys": GOOD}
    assert jwks.thumbprints(jwks.understood(given)) == [key["kid"] for key in GOOD]


def small_rsa() -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from joserfc.util import int_to_base64

    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {"kty": "RSA", "n": int_to_base64(numbers.n), "e": int_to_base64(numbers.e)}


BAD: list[Any] = [
    *(None, "key", 1, [], {}),
    # private and symmetric
    *(dict(key.as_dict(private=True)) for key in (RSA, EC["P-256"], OKP["Ed25519"])),
    dict(OctKey.generate_key(256).as_dict(private=True)),
    *(EC256 | {member: "AQAB"} for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")),
    EC256 | {"d": None},
    {"kty": "oct"},
    # other kinds
    *(public(key) for key in (EC["secp256k1"], OKP["X25519"], OKP["Ed448"])),
    *(EC256 | {"kty": kty} for kty in ("RSA", "OKP", "ec", "", None, [], {}, 1)),
    *(EC256 | {"crv": crv} for crv in ("P-384", "P-999", None, [], {})),
    # not on the curve, out of range, no base64url, missing
    *(
        EC256 | {"x": x}
        for x in ("", "AQAB", "A" * 43, EC256["y"], EC256["x"] + "=", "+" + EC256["x"][1:], 5, None, "é")
    ),
    {name: value for name, value in EC256.items() if name != "y"},
    *(public(OKP["Ed25519"], x=x) for x in ("", "AQAB", "A" * 44)),
    {name: value for name, value in public(RSA).items() if name != "e"},
    *(public(RSA, e=e) for e in ("", "AQ", "Ag", "AA", 65537)),
    *(public(RSA, n=n) for n in ("", "AQAB", 17, ["x"], "A" * 4000, "A" * 400 + "AQ")),
    small_rsa(),
    public(RSA, n="_" * 1368),  # 8208 bits
    # other members of the wrong kind
    *(EC256 | {"kid": kid} for kid in (None, 1, [], {})),
    *(EC256 | {"use": use} for use in (None, "encrypt", ["sig"], {})),
    *(EC256 | {"alg": alg} for alg in (None, 1, ["ES256"])),
    *(EC256 | {"key_ops": ops} for ops in ("verify", ["lick"], [1], [["verify"]], None, {})),
    EC256 | {"use": "enc", "key_ops": ["verify"]},
]


@pytest.mark.parametrize("key", BAD, ids=range(len(BAD)))
def test_what_is_no_public_key(key: Any):
    assert fields(GOOD[0], key) == ["jwks.keys.1"]


ALGS = [
    ("RSA", "PS256", "RS512"),
    ("RSA", "RSA-OAEP-256", "RSA-OAEP"),
    ("P-256", "ES256", "ECDH-ES", "ECDH-ES+A256KW"),
    ("P-384", "ES384"),
    ("P-521", "ES512", "ECDH-ES"),
    ("Ed25519", "EdDSA", "Ed25519"),
]


def test_alg_fits_the_key_and_its_use():
    """RFC 8725 section 3.1. What no key of this server's clients may be for, and what is another key's."""
    keys = {"RSA": RSA, **EC, **OKP}
    for name, *algs in ALGS:
        for alg in algs:
            use, other = ("enc", "sig") if alg.startswith(("RSA-", "ECDH")) else ("sig", "enc")
            assert fields(public(keys[name], alg=alg)) == fields(public(keys[name], alg=alg, use=use)) == []
            assert fields(public(keys[name], alg=alg, use=other)) == ["jwks.keys.0"]
        for alg in ("none", "None", "HS256", "HS512", "dir", "A256KW", "PBES2-HS256+A128KW", "ES256K", "rs256", ""):
            assert fields(public(keys[name], alg=alg)) == ["jwks.keys.0"], (name, alg)
    for name, alg in (("RSA", "ES256"), ("P-256", "ES384"), ("P-384", "ES256"), ("P-256", "RSA-OAEP-256")):
        assert fields(public(keys[name], alg=alg)) == ["jwks.keys.0"]
    assert fields(public(RSA, use="enc"), public(EC["P-256"], use="sig")) == []


def test_each_key_once():
    """RFC 7517 section 4.5."""
    again = EC256 | {"kid": "another", "use": "enc"}
    assert fields(EC256, again, public(RSA)) == ["jwks.keys.1"]
    assert fields(public(RSA, kid="a"), EC256, public(EC["P-384"], kid="a")) == ["jwks.keys.2"]
    nameless = {name: value for name, value in EC256.items() if name != "kid"}
    assert fields(nameless, {name: value for name, value in public(RSA).items() if name != "kid"}) == []


def test_how_many_and_how_large():
    assert fields(*(public(ECKey.generate_key("P-256", auto_kid=True)) for _ in range(10))) == []
    for keys in ([], [EC256] * 11, None, {}, "keys", 1):
        assert [fault.field for fault in jwks.faults({"keys": keys})] == ["jwks"]
    assert [fault.field for fault in jwks.faults({})] == ["jwks"]
    assert [fault.field for fault in jwks.faults({"keys": [EC256], "more": "x" * 17_000})] == ["jwks"]
