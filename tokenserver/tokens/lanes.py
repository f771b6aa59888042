"""What Intel's crypto_mb takes and gives: eight signatures by one key, one in each lane of AVX-512 IFMA
(docs/adr/0032 and 0038).

What it computes must not give a key away, whatever computes wrongly. RS256 and EdDSA are verified before anybody
gets them: with one wrong half of an RSA signature, or a second, wrong one over the same input by EdDSA, anybody
could compute the key (Boneh, DeMillo, Lipton 1997; Romailler, Pelissier 2017). A wrong one by ECDSA, whose nonce
nobody knows, doesn't do that, and OpenSSL doesn't look at its own; here the first ones of a process are verified.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256, sha512
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

LANES: Final = 8
# With longer keys OpenSSL is as fast: 1.05 ms for 3072 bits, 1.5 ms for 4096.
BITS: Final = 2048
SIZE: Final = BITS // 8
# The only public exponent that the library verifies by.
EXPONENT: Final = 65537
# RFC 8017 section 9.2, note 1: what stands before a SHA-256 digest.
DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
PADDING: Final = b"\x00\x01" + b"\xff" * (SIZE - len(DIGEST_INFO) - 32 - 3) + b"\x00" + DIGEST_INFO
# Of P-256 (SP 800-186 section 3.2.1.3), and what isn't above zero.
ORDER: Final = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
ZERO: Final = bytes(32)
# Of an integer, a point and half a signature.
HALF: Final = 32
_ECDSA: Final = ECDSA(hashes.SHA256())

Sign = Callable[[bytes], bytes]
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
_Pointers = ctypes.c_void_p * LANES
_Texts = ctypes.c_char_p * LANES
_Lengths = ctypes.c_uint32 * LANES


class WrongSignature(Exception):
    """What the library computed isn't what was asked for: nobody may see it."""


class CryptoMb:
    """`paths`: of the libraries that it needs, and of itself. Raises OSError, AttributeError when it can't."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._library = [ctypes.CDLL(path) for path in paths][-1]
        # Behind the arrays the bits, and a method and its buffer, which it can choose itself.
        method = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self.rsa_private = self._function("mbx_rsa_private_crt_mb8", 7, *method)
        self.rsa_public = self._function("mbx_rsa_public_mb8", 3, *method)
        self.ecdsa_sign = self._function("mbx_nistp256_ecdsa_sign_mb8", 5, ctypes.c_void_p)  # a buffer
        self.eddsa_sign = self._function("mbx_ed25519_sign_mb8", 6)
        self.eddsa_verify = self._function("mbx_ed25519_verify_mb8", 5)

    def _function(self, name: str, arrays: int, *more: Any) -> Any:
        function = getattr(self._library, name)
        function.restype = ctypes.c_uint32  # four bits for each lane
        function.argtypes = [*[ctypes.c_void_p] * arrays, *more]
        return function


class LaneKey(Protocol):
    """A private key as the library takes it. `alone`: signs with it by OpenSSL. `fewest`: all lanes cost the same,
    however many of them are wanted; fewer signatures than these are cheaper by OpenSSL."""

    alone: Sign
    fewest: int

    def sign(self, library: CryptoMb, inputs: Sequence[bytes]) -> list[bytes]:
        """The JWS signatures over as many signing inputs as there are lanes. Raises WrongSignature."""


def lane_key(alg: str, private: PrivateKey, alone: Sign) -> LaneKey | None:
    """None for what the library doesn't serve."""
    if alg == "RS256" and isinstance(private, RSAPrivateKey) and RsaKey.serves(private):
        return RsaKey(private, alone)
    if isinstance(private, EllipticCurvePrivateKey):
        return EcKey(private, alone)
    if isinstance(private, Ed25519PrivateKey):
        return EdKey(private, alone)
    return None


class RsaKey:
    """RS256 (RFC 8017 section 8.2.1)."""

    fewest = 5

    def __init__(self, private: RSAPrivateKey, alone: Sign) -> None:
        self._private = private
        self.alone = alone

    @staticmethod
    def serves(private: RSAPrivateKey) -> bool:
        if private.key_size != BITS:
            return False
        numbers = private.private_numbers()
        are_halves = numbers.p.bit_length() == numbers.q.bit_length() == BITS // 2
        return are_halves and numbers.public_numbers.e == EXPONENT

    @cached_property
    def _secrets(self) -> tuple[Any, ...]:
        """p, q, d mod (p - 1), d mod (q - 1) and q⁻¹ mod p, for each lane."""
        numbers = self._private.private_numbers()
        parts = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        return tuple(_in_each_lane(part.to_bytes(SIZE // 2, "little")) for part in parts)

    @cached_property
    def _modulus(self) -> Any:
        return _in_each_lane(self._private.private_numbers().public_numbers.n.to_bytes(SIZE, "little"))

    def sign(self, library: CryptoMb, inputs: Sequence[bytes]) -> list[bytes]:
        messages = b"".join(encoded(each) for each in inputs)
        asked, signed, opened = (ctypes.create_string_buffer(each, SIZE * LANES) for each in (messages, b"", b""))
        status = library.rsa_private(_lanes(asked, SIZE), _lanes(signed, SIZE), *self._secrets, BITS, None, None)
        status |= library.rsa_public(_lanes(signed, SIZE), _lanes(opened, SIZE), self._modulus, BITS, None, None)
        if status or opened.raw != messages:
            raise WrongSignature(f"status {status:08x}")
        return _split(signed.raw, SIZE)


class EcKey:
    """ES256 (RFC 7518 section 3.4)."""

    fewest = 3

    def __init__(self, private: EllipticCurvePrivateKey, alone: Sign) -> None:
        self._private = private
        self.alone = alone
        self._is_tried = False

    @cached_property
    def _secret(self) -> bytes:
        return self._private.private_numbers().private_value.to_bytes(HALF, "big")

    @cached_property
    def _in_lanes(self) -> Any:
        return _in_each_lane(self._secret[::-1])

    def sign(self, library: CryptoMb, inputs: Sequence[bytes]) -> list[bytes]:
        digests = [sha256(each).digest() for each in inputs]
        drawn = _split(os.urandom(HALF * LANES), HALF)
        nonces = [nonce(self._secret, *each)[::-1] for each in zip(digests, drawn, strict=True)]
        r, s = (ctypes.create_string_buffer(HALF * LANES) for _ in range(2))
        lanes = (_lanes(r, HALF), _lanes(s, HALF), _Texts(*digests), _Texts(*nonces), self._in_lanes)
        status = library.ecdsa_sign(*lanes, None)
        if status:
            raise WrongSignature(f"status {status:08x}")
        made = _joined(r, s)
        if not self._is_tried:
            self._verify(inputs, made)
            self._is_tried = True
        return made

    def _verify(self, inputs: Sequence[bytes], made: Sequence[bytes]) -> None:
        public = self._private.public_key()
        for signing_input, signature in zip(inputs, made, strict=True):
            r, s = (int.from_bytes(half, "big") for half in (signature[:HALF], signature[HALF:]))
            try:
                public.verify(encode_dss_signature(r, s), signing_input, _ECDSA)
            except InvalidSignature:
                raise WrongSignature("it doesn't verify") from None


class EdKey:
    """EdDSA by Ed25519 (RFC 8032 section 5.1.6, RFC 8037 section 3.1)."""

    fewest = 5

    def __init__(self, private: Ed25519PrivateKey, alone: Sign) -> None:
        self._private = private
        self.alone = alone

    @cached_property
    def _in_lanes(self) -> tuple[Any, Any]:
        """The private and the public key."""
        public = self._private.public_key().public_bytes_raw()
        return _in_each_lane(self._private.private_bytes_raw()), _in_each_lane(public)

    def sign(self, library: CryptoMb, inputs: Sequence[bytes]) -> list[bytes]:
        texts, lengths = _Texts(*inputs), _Lengths(*map(len, inputs))
        r, s = (ctypes.create_string_buffer(HALF * LANES) for _ in range(2))
        private, public = self._in_lanes
        status = library.eddsa_sign(_lanes(r, HALF), _lanes(s, HALF), texts, lengths, private, public)
        status |= library.eddsa_verify(_lanes(r, HALF), _lanes(s, HALF), texts, lengths, public)
        if status:
            raise WrongSignature(f"status {status:08x}")
        return _joined(r, s)


def encoded(signing_input: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2)."""
    return PADDING + sha256(signing_input).digest()


def nonce(secret: bytes, digest: bytes, drawn: bytes) -> bytes:
    """A number from 1 to below the order that nobody can guess, for one signature (FIPS 186-5 appendix A.3.2).
    `drawn`: 32 random bytes.

    A nonce that comes again gives the key away. So it is made of the key and of what is signed, too, as OpenSSL
    does: random bytes that came again would do no harm (RFC 6979 section 3.6).
    """
    while True:
        candidate = sha512(secret + drawn + digest).digest()[:HALF]
        if ZERO < candidate < ORDER:
            return candidate
        drawn = os.urandom(HALF)


def _in_each_lane(content: bytes) -> Any:
    """The array keeps the bytes that it points to."""
    words = ctypes.create_string_buffer(content, len(content))
    lanes = _Pointers(*[ctypes.addressof(words)] * LANES)
    lanes.words = words  # type: ignore[attr-defined]
    return lanes


def _lanes(buffer: Any, size: int) -> Any:
    start = ctypes.addressof(buffer)
    return _Pointers(*range(start, start + size * LANES, size))


def _split(buffer: bytes, size: int) -> list[bytes]:
    return [buffer[start : start + size] for start in range(0, size * LANES, size)]


def _joined(r: Any, s: Any) -> list[bytes]:
    return [left + right for left, right in zip(_split(r.raw, HALF), _split(s.raw, HALF), strict=True)]
