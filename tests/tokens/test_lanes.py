"""What crypto_mb computes in eight lanes: signatures as OpenSSL makes or verifies them, and never a wrong one."""

import ctypes
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jws import JWSRegistry

from tests.conftest import MULTI_BUFFER_FAULT
from tokenserver.tokens import lanes, multi_buffer, signing_key
from tokenserver.tokens.lanes import BITS, LANES, ORDER, ZERO, CryptoMb, WrongSignature, lane_key, nonce
from tokenserver.tokens.signing_key import generate_pem, load_pem

ALGS = ("RS256", "ES256", "EdDSA")


def loaded(alg):
    """The key as it is published, and for eight lanes."""
    found = []

    def keep(alg, private, alone):
        key = lane_key(alg, private, alone)
        found.append(key)
        return key

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing_key, "lane_key", keep)
        public = load_pem(alg, generate_pem(alg)).public.key
    return public, found[0]


@pytest.fixture
def crypto_mb():
    if MULTI_BUFFER_FAULT:
        pytest.skip(MULTI_BUFFER_FAULT)
    return CryptoMb(multi_buffer._paths())


def is_right(alg, public, signing_input, signature):
    return JWSRegistry.algorithms[alg].verify(signing_input, signature, public)


@pytest.mark.parametrize("alg", ALGS)
def test_signatures_are_right_and_in_their_order(crypto_mb, alg):
    public, key = loaded(alg)
    for size in (0, 1, 63, 64, 111, 112, 4096):
        inputs = [bytes([size % 256, number]) * size for number in range(LANES)]
        made = key.sign(crypto_mb, inputs)
        assert len(made) == LANES
        assert all(is_right(alg, public, *each) for each in zip(inputs, made, strict=True))
        if alg != "ES256":  # the others have one signature for each input
            assert made == [key.alone(each) for each in inputs]


def test_nonces_never_come_again(crypto_mb):
    """Two signatures with one nonce, and anybody could compute the key."""
    _, key = loaded("ES256")
    made = [each for _ in range(50) for each in key.sign(crypto_mb, [b"the same"] * LANES)]
    assert len({signature[:32] for signature in made}) == 50 * LANES


def test_nonces_are_made_of_the_key_the_input_and_random_bytes():
    secret, digest, drawn = b"s" * 32, sha256(b"x").digest(), b"d" * 32
    others = [(b"t" * 32, digest, drawn), (secret, sha256(b"y").digest(), drawn), (secret, digest, b"e" * 32)]
    made = {nonce(*each) for each in ((secret, digest, drawn), *others)}
    assert len(made) == 4
    assert all(ZERO < each < ORDER for each in made)


def test_a_nonce_that_is_none_is_drawn_again(monkeypatch):
    class Hash:
        wanted = [ZERO, ORDER, b"\xff" * 32, ORDER[:-1] + b"\x50"]  # noqa: RUF012
        asked = []  # noqa: RUF012

        def __init__(self, content):
            self.asked.append(content)

        def digest(self):
            return self.wanted[len(self.asked) - 1] + bytes(32)

    monkeypatch.setattr(lanes, "sha512", Hash)
    assert nonce(b"s" * 32, b"d" * 32, b"r" * 32) == Hash.wanted[-1]
    assert len({asked[32:64] for asked in Hash.asked}) == 4
    assert all((asked[:32], asked[64:]) == (b"s" * 32, b"d" * 32) for asked in Hash.asked)


def swapped(numbers):
    p, q = numbers.p, numbers.q
    return rsa.RSAPrivateNumbers(
        q, p, numbers.d, numbers.d % (q - 1), numbers.d % (p - 1), pow(p, -1, q), numbers.public_numbers
    )


def test_rsa_key_with_either_prime_first(crypto_mb):
    """As other programs make them."""
    numbers = rsa.generate_private_key(65537, BITS).private_numbers()
    for each in (numbers, swapped(numbers)):
        private = each.private_key()
        key = lane_key("RS256", private, signing_key._alone("RS256", private))
        assert key.sign(crypto_mb, [b"x"] * LANES) == [key.alone(b"x")] * LANES


def spoiling(function, lane):
    """What a fault of the processor would leave of the signature in one lane."""

    def compute(first, *rest):
        signed = rest[0] if function.__name__ == "mbx_rsa_private_crt_mb8" else first
        status = function(first, *rest)
        ctypes.c_uint8.from_address(signed[lane] + 20).value ^= 1
        return status

    return compute


@pytest.mark.parametrize("lane", [0, LANES - 1])
@pytest.mark.parametrize(
    ("alg", "function"), [("RS256", "rsa_private"), ("ES256", "ecdsa_sign"), ("EdDSA", "eddsa_sign")]
)
def test_signature_with_one_wrong_bit_is_noticed(crypto_mb, alg, function, lane):
    _, key = loaded(alg)
    setattr(crypto_mb, function, spoiling(getattr(crypto_mb, function), lane))
    with pytest.raises(WrongSignature):
        key.sign(crypto_mb, [b"x"] * LANES)


@pytest.mark.parametrize(
    ("alg", "function"),
    [
        ("RS256", "rsa_private"),
        ("RS256", "rsa_public"),
        ("ES256", "ecdsa_sign"),
        ("EdDSA", "eddsa_sign"),
        ("EdDSA", "eddsa_verify"),
    ],
)
def test_status_of_one_lane_is_noticed(crypto_mb, alg, function):
    compute = getattr(crypto_mb, function)
    setattr(crypto_mb, function, lambda *arguments: compute(*arguments) | 0x00100000)
    _, key = loaded(alg)
    with pytest.raises(WrongSignature, match="status 00100000"):
        key.sign(crypto_mb, [b"x"] * LANES)


@pytest.mark.parametrize(("bits", "exponent"), [(3072, 65537), (BITS, 3)])
def test_keys_that_it_does_not_serve(bits, exponent):
    private = rsa.generate_private_key(exponent, bits)
    assert lane_key("RS256", private, private.sign) is None


def test_algorithms_that_it_does_not_serve():
    private = rsa.generate_private_key(65537, BITS)
    assert lane_key("PS256", private, private.sign) is None
