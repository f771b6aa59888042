"""Signatures eight at a time: for who is answered in one turn of a loop, and as long as none is wrong."""

import logging
from importlib import metadata

import pytest
from greenlet import greenlet
from joserfc.jws import JWSRegistry

from tokenserver.config import SIGNING_ALGS
from tokenserver.storage.aside import Aside
from tokenserver.tokens import multi_buffer, signing_key
from tokenserver.tokens.lanes import LANES, WrongSignature
from tokenserver.tokens.multi_buffer import Found, MultiBuffer, shared
from tokenserver.tokens.signing_key import generate_pem, load_pem


class Key:
    """Signs by writing its name. `calls`: how many inputs it was given together; `is_wrong`: whether it notices a
    wrong signature."""

    fewest = 5

    def __init__(self, name):
        self.name = name
        self.calls = []
        self.is_wrong = False

    def alone(self, signing_input):
        return self.name + signing_input

    def sign(self, library, inputs):
        assert library is LIBRARY
        self.calls.append(len(inputs))
        if self.is_wrong:
            raise WrongSignature("status 00000001")
        return [self.alone(each) for each in inputs]


LIBRARY = object()


@pytest.fixture
def keys():
    return Key(b"first "), Key(b"second ")


@pytest.fixture
def signs():
    return MultiBuffer(LIBRARY)


def test_signatures_are_in_the_order_of_asking(signs, keys):
    for count in range(1, 2 * LANES + 4):
        items = [(keys[number % 3 == 2], f"{count}.{number}".encode()) for number in range(count)]
        assert signs.exchange(items) == [key.alone(data) for key, data in items]


def test_keys_do_not_share_a_call(signs, keys):
    items = [(key, bytes([number])) for number in range(LANES) for key in keys]
    assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert [key.calls for key in keys] == [[LANES], [LANES]]


@pytest.mark.parametrize(("count", "calls"), [(1, 0), (4, 0), (5, 1), (8, 1), (12, 1), (13, 2), (16, 2)])
def test_few_signatures_are_made_one_by_one(signs, keys, count, calls):
    assert signs.exchange([(keys[0], b"x")] * count) == [keys[0].alone(b"x")] * count
    assert keys[0].calls == [LANES] * calls


def test_wrong_signature_is_given_to_nobody_and_the_library_asked_no_more(signs, keys, caplog):
    keys[0].is_wrong = True
    items = [(keys[0], bytes([number])) for number in range(2 * LANES)]
    with caplog.at_level(logging.CRITICAL, "tokenserver.keys"):
        assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert [record.getMessage() for record in caplog.records] == [
        "crypto_mb made a wrong signature, and this process asks it no more: status 00000001"
    ]
    keys[0].is_wrong = False
    assert signs.exchange(items) == [key.alone(data) for key, data in items]
    assert keys[0].calls == [LANES]


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


def test_only_who_is_answered_in_a_loop_shares(signs, keys, monkeypatch):
    monkeypatch.setattr(multi_buffer, "found", lambda: Found(signs))
    loop, sign = Loop(), shared(keys[0])
    assert sign(b"x") == keys[0].alone(b"x")
    assert loop.asked == []
    assert in_loop(loop, lambda: sign(b"y")) == keys[0].alone(b"y")
    assert loop.asked == [(signs, b"y")]
    monkeypatch.setattr(multi_buffer, "found", Found)
    assert in_loop(loop, lambda: sign(b"z")) == keys[0].alone(b"z")
    assert loop.asked == [(signs, b"y")]


@pytest.mark.parametrize("alg", SIGNING_ALGS)
def test_who_signs_in_a_loop_waits_for_the_others(signs, monkeypatch, alg):
    """Eight at a time, where that is possible; PS256, and all without it, one after the other."""
    loop, key = Loop(), load_pem(alg, generate_pem(alg))
    sign, in_a_row = key.signer.sign, signing_key._one_after_the_other
    for found, expected in ((Found(signs), in_a_row if alg == "PS256" else signs), (Found(), in_a_row)):
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
