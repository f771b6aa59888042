"""RS256 signatures eight at a time: the same ones, and never a wrong one."""

import ctypes
import logging
from importlib import metadata

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from greenlet import greenlet
from joserfc.jws import JWSRegistry

from tests.conftest import MULTI_BUFFER_FAULT
from tokenserver.config import SIGNING_ALGS
from tokenserver.storage.aside import Aside
from tokenserver.tokens import multi_buffer, signing_key
from tokenserver.tokens.multi_buffer import BITS, LANES, SIZE, Found, LaneKey, MultiBuffer, WrongSignature, shared
from tokenserver.tokens.signing_key import generate_pem, load_pem


def new_key(bits=BITS, exponent=65537):
    private = rsa.generate_private_key(exponent, bits)
    return LaneKey(private, lambda data: private.sign(data, padding.PKCS1v15(), hashes.SHA256()))


@pytest.fixture(scope="module")
def keys():
    return new_key(), new_key()


class Arithmetic:
    """In Python. `calls`: messages that each was asked for; `wrong`: whether it notices a wrong signature."""

    def __init__(self):
        self.calls = []
        self.wrong = False

    def sign(self, key, messages):
        each = [messages[start : start + SIZE] for start in range(0, len(messages), SIZE)]
        self.calls.append(each)
        if self.wrong:
            raise WrongSignature("status 00000001")
        numbers = key._private.private_numbers()
        n, d = numbers.public_numbers.n, numbers.d
        return b"".join(pow(int.from_bytes(m, "big"), d, n).to_bytes(SIZE, "big") for m in each)


@pytest.fixture
def arithmetic():
    return Arithmetic()


@pytest.fixture
def crypto_mb():
    if MULTI_BUFFER_FAULT:
        pytest.skip(MULTI_BUFFER_FAULT)
    return multi_buffer.CryptoMb(multi_buffer._paths())


@pytest.fixture(params=["arithmetic", "crypto_mb"])
def library(request):
    return request.getfixturevalue(request.param)


def test_signatures_are_those_of_openssl_in_their_order(library, keys):
    signs = MultiBuffer(library)
    for count in range(1, 2 * LANES + 4):
        items = [(keys[number % 3 == 2], f"{count}.{number}".encode()) for number in range(count)]
        assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert signs.is_sound


def test_key_with_the_larger_prime_last(crypto_mb):
    """As other programs make them."""
    n = rsa.generate_private_key(65537, BITS).private_numbers()
    least, most = sorted((n.p, n.q))
    swapped = rsa.RSAPrivateNumbers(
        least, most, n.d, n.d % (least - 1), n.d % (most - 1), pow(most, -1, least), n.public_numbers
    ).private_key()
    key = LaneKey(swapped, lambda data: swapped.sign(data, padding.PKCS1v15(), hashes.SHA256()))
    signs = MultiBuffer(crypto_mb)
    assert signs.exchange([(key, b"x")] * LANES) == [key.alone(b"x")] * LANES
    assert signs.is_sound


def test_keys_do_not_share_a_call(arithmetic, keys):
    items = [(key, bytes([number])) for number in range(LANES) for key in keys]
    assert MultiBuffer(arithmetic).exchange(items) == [key.alone(data) for key, data in items]
    assert len(arithmetic.calls) == 2


@pytest.mark.parametrize(("count", "calls"), [(1, 0), (4, 0), (5, 1), (8, 1), (12, 1), (13, 2), (16, 2)])
def test_few_signatures_are_made_one_by_one(arithmetic, keys, count, calls):
    signatures = MultiBuffer(arithmetic).exchange([(keys[0], b"x")] * count)
    assert signatures == [keys[0].alone(b"x")] * count
    assert [len(call) for call in arithmetic.calls] == [LANES] * calls


def test_wrong_signature_is_given_to_nobody_and_the_library_asked_no_more(arithmetic, keys, caplog):
    signs = MultiBuffer(arithmetic)
    arithmetic.wrong = True
    items = [(keys[0], bytes([number])) for number in range(2 * LANES)]
    with caplog.at_level(logging.CRITICAL, "tokenserver.keys"):
        assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert [record.getMessage() for record in caplog.records] == [
        "crypto_mb made a wrong signature, and this process asks it no more: status 00000001"
    ]
    arithmetic.wrong = False
    assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert len(arithmetic.calls) == 1


@pytest.mark.parametrize("lane", [0, LANES - 1])
def test_signature_with_one_wrong_bit_is_noticed(crypto_mb, keys, lane):
    """What a fault of the processor would leave of it, which would give the key away."""
    compute = crypto_mb._private

    def compute_wrongly(asked, signed, *rest):
        status = compute(asked, signed, *rest)
        ctypes.c_uint8.from_address(signed[lane] + 100).value ^= 1
        return status

    crypto_mb._private = compute_wrongly
    with pytest.raises(WrongSignature, match="status 00000000"):
        crypto_mb.sign(keys[0], multi_buffer.encoded(b"x") * LANES)


@pytest.mark.parametrize("function", ["_private", "_public"])
def test_status_of_one_lane_is_noticed(crypto_mb, keys, function):
    compute = getattr(crypto_mb, function)
    setattr(crypto_mb, function, lambda *arguments: compute(*arguments) | 0x00100000)
    with pytest.raises(WrongSignature, match="status 00100000"):
        crypto_mb.sign(keys[0], multi_buffer.encoded(b"x") * LANES)


@pytest.mark.parametrize("key", [new_key(3072), new_key(exponent=3)], ids=["3072 bits", "exponent 3"])
def test_keys_that_it_does_not_serve_sign_by_themselves(key):
    assert shared(key._private, key.alone) is key.alone


class Loop:
    """`asked`: who signed what."""

    def __init__(self):
        self.asked = []

    def ask(self, together, item):
        self.asked.append((together, item[1]))
        return greenlet(together.exchange).switch([item])[0]  # not aside


def in_loop(loop, work):
    task = Aside(work)
    task.loop = loop
    return task.switch()


def test_only_who_is_answered_in_a_loop_shares(arithmetic, keys, monkeypatch):
    signs = MultiBuffer(arithmetic)
    monkeypatch.setattr(multi_buffer, "found", lambda: Found(signs))
    loop, sign = Loop(), shared(keys[0]._private, keys[0].alone)
    assert sign(b"x") == keys[0].alone(b"x")
    assert loop.asked == []
    assert in_loop(loop, lambda: sign(b"y")) == keys[0].alone(b"y")
    assert loop.asked == [(signs, b"y")]
    monkeypatch.setattr(multi_buffer, "found", Found)
    assert in_loop(loop, lambda: sign(b"z")) == keys[0].alone(b"z")
    assert loop.asked == [(signs, b"y")]


@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_who_signs_in_a_loop_waits_for_the_others(arithmetic, monkeypatch, alg):
    """RS256 eight at a time, where that is possible; all else, and without it, one after the other."""
    signs = MultiBuffer(arithmetic)
    monkeypatch.setattr(multi_buffer, "found", lambda: Found(signs))
    loop, key = Loop(), load_pem(alg, generate_pem(alg))
    sign, in_a_row = key.signer.sign, signing_key._one_after_the_other
    for found, expected in ((Found(signs), signs if alg == "RS256" else in_a_row), (Found(), in_a_row)):
        monkeypatch.setattr(multi_buffer, "found", lambda found=found: found)
        signatures = [in_loop(loop, lambda: sign(b"x.y")), sign(b"x.y")]
        assert loop.asked.pop() == (expected, b"x.y")
        assert loop.asked == []
        verifier = JWSRegistry.algorithms[alg]
        assert all(verifier.verify(b"x.y", signature, key.public.key) for signature in signatures)


def test_signatures_in_a_row_are_in_the_order_of_asking():
    keys = [load_pem(alg, generate_pem(alg)).signer for alg in ("EdDSA", "RS256", "EdDSA")]
    items = [(key.sign, bytes([number])) for number in range(4) for key in keys]
    assert signing_key._one_after_the_other.exchange(items) == [sign(data) for sign, data in items]


def missing():
    raise metadata.PackageNotFoundError("ipp-crypto")


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({"_paths": missing}, Found()),
        ({"_has_ifma": lambda: False}, Found(fault="the processor has no AVX-512 IFMA")),
        ({"_paths": lambda: ["no-such-library.so"]}, "no-such-library.so: cannot open shared object file"),
        ({"_paths": lambda: ["libc.so.6"]}, "undefined symbol: mbx_rsa_private_crt_mb8"),
    ],
    ids=["not installed", "processor", "not loaded", "another library"],
)
def test_where_it_cannot_be_used(monkeypatch, replaced, expected):
    for name, instead in ({"_has_ifma": lambda: True, "_paths": list} | replaced).items():
        monkeypatch.setattr(multi_buffer, name, instead)
    found = multi_buffer.found.__wrapped__()
    assert found == expected if isinstance(expected, Found) else (found.signs is None and expected in found.fault)
