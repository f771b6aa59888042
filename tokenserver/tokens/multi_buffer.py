"""RS256 signatures (RFC 8017 section 8.2.1) eight at a time, for what a loop answers in one turn (docs/adr/0032).

AVX-512 IFMA multiplies in eight lanes, and one signature can't fill them. Intel's crypto_mb computes eight at once,
in the time that OpenSSL takes for less than five. It is used where the extra `multi-buffer` is installed and the
processor can; whatever it computes is verified before anybody gets it.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from tokenserver.storage.aside import loop

logger = logging.getLogger("tokenserver.keys")

LANES: Final = 8
# All lanes cost the same, however many of them are wanted: four signatures are cheaper one by one.
FEWEST: Final = 5
# With longer keys OpenSSL is as fast: 1.05 ms for 3072 bits, 1.5 ms for 4096.
BITS: Final = 2048
SIZE: Final = BITS // 8
# The only public exponent that the library verifies by.
EXPONENT: Final = 65537
# RFC 8017 section 9.2, note 1: what stands before a SHA-256 digest.
DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
PADDING: Final = b"\x00\x01" + b"\xff" * (SIZE - len(DIGEST_INFO) - 32 - 3) + b"\x00" + DIGEST_INFO
# In the order in which each finds those that it needs.
LIBRARIES: Final = {
    "intel-cmplr-lib-rt": ("libintlc.so.5", "libimf.so", "libirng.so", "libsvml.so"),
    "ipp-crypto": ("libcrypto_mb.so",),
}

Sign = Callable[[bytes], bytes]
Pointers = ctypes.c_void_p * LANES


class WrongSignature(Exception):
    """What the library computed isn't what was asked for: nobody may see it. With one wrong half of a signature,
    anybody could compute the key (Boneh, DeMillo, Lipton 1997)."""


class LaneKey:
    """A private key as the library takes it. `alone`: signs with it by OpenSSL."""

    def __init__(self, private: RSAPrivateKey, alone: Sign) -> None:
        self._private = private
        self.alone = alone

    @property
    def fits(self) -> bool:
        if self._private.key_size != BITS:
            return False
        numbers = self._private.private_numbers()
        are_halves = numbers.p.bit_length() == numbers.q.bit_length() == BITS // 2
        return are_halves and numbers.public_numbers.e == EXPONENT

    @cached_property
    def secrets(self) -> tuple[Any, ...]:
        """p, q, d mod (p - 1), d mod (q - 1) and q⁻¹ mod p, for each lane."""
        numbers = self._private.private_numbers()
        parts = (numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp)
        return tuple(_in_each_lane(part, SIZE // 2) for part in parts)

    @cached_property
    def modulus(self) -> Any:
        return _in_each_lane(self._private.private_numbers().public_numbers.n, SIZE)


class Library(Protocol):
    def sign(self, key: LaneKey, messages: bytes) -> bytes:
        """Of as many encoded messages as there are lanes, one after the other; so the signatures. Raises
        WrongSignature."""


class CryptoMb:
    """`paths`: of the libraries that it needs, and of itself. Raises OSError, AttributeError when it can't."""

    def __init__(self, paths: Sequence[str]) -> None:
        loaded = [ctypes.CDLL(path) for path in paths]
        self._private, self._public = loaded[-1].mbx_rsa_private_crt_mb8, loaded[-1].mbx_rsa_public_mb8
        pointer = ctypes.c_void_p
        for function, arrays in ((self._private, 7), (self._public, 3)):
            function.restype = ctypes.c_uint32  # four bits for each lane
            # At the end the bits, and a method and its buffer, which it can choose itself.
            function.argtypes = [*[pointer] * arrays, ctypes.c_int, pointer, pointer]

    def sign(self, key: LaneKey, messages: bytes) -> bytes:
        asked, signed, opened = (ctypes.create_string_buffer(each, SIZE * LANES) for each in (messages, b"", b""))
        status = self._private(_lanes(asked), _lanes(signed), *key.secrets, BITS, None, None)
        status |= self._public(_lanes(signed), _lanes(opened), key.modulus, BITS, None, None)
        if status or opened.raw != messages:
            raise WrongSignature(f"status {status:08x}")
        return signed.raw


class MultiBuffer:
    """`is_sound`: whether the library may be asked."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.is_sound = True

    def exchange(self, items: Sequence[tuple[LaneKey, bytes]]) -> list[bytes]:
        """The signatures of keys over signing inputs, in their order."""
        signatures: dict[int, bytes] = {}
        for key in {key for key, _ in items}:
            mine = [place for place, item in enumerate(items) if item[0] is key]
            for start in range(0, len(mine), LANES):
                places = mine[start : start + LANES]
                made = self._sign(key, [items[place][1] for place in places])
                signatures |= zip(places, made, strict=True)
        return [signatures[place] for place in range(len(items))]

    def _sign(self, key: LaneKey, inputs: Sequence[bytes]) -> list[bytes]:
        if self.is_sound and len(inputs) >= FEWEST:
            messages = [encoded(each) for each in inputs]
            messages += messages[:1] * (LANES - len(messages))
            try:
                made = self._library.sign(key, b"".join(messages))
            except WrongSignature as error:
                self.is_sound = False
                logger.critical("crypto_mb made a wrong signature, and this process asks it no more: %s", error)
            else:
                return [made[SIZE * place : SIZE * (place + 1)] for place in range(len(inputs))]
        return [key.alone(each) for each in inputs]


class Found(NamedTuple):
    """`fault`: why it isn't used although it is installed."""

    signs: MultiBuffer | None = None
    fault: str = ""


@cache
def found() -> Found:
    """Takes up to 0.2 s."""
    try:
        paths = _paths()
    except metadata.PackageNotFoundError:
        return Found()
    try:
        if not _has_ifma():
            return Found(fault="the processor has no AVX-512 IFMA")
        return Found(MultiBuffer(CryptoMb(paths)))
    except (OSError, AttributeError) as error:
        return Found(fault=str(error))


def shared(private: RSAPrivateKey, alone: Sign) -> Sign:
    """`alone`, or together with what others in the same loop have to sign."""
    key = LaneKey(private, alone)
    if not key.fits:
        return alone

    def sign(signing_input: bytes) -> bytes:
        here = loop()
        signs = None if here is None else found().signs
        if here is None or signs is None:
            return alone(signing_input)
        signature: bytes = here.ask(signs, (key, signing_input))
        return signature

    return sign


def encoded(signing_input: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2)."""
    return PADDING + sha256(signing_input).digest()


def _has_ifma() -> bool:
    return " avx512ifma " in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def _paths() -> list[str]:
    """Raises PackageNotFoundError."""
    paths: list[str] = []
    for package, names in LIBRARIES.items():
        files = {file.name: str(file.locate()) for file in metadata.files(package) or ()}
        paths += [files.get(name, name) for name in names]
    return paths


def _in_each_lane(number: int, size: int) -> Any:
    """Little-endian; the array keeps the bytes that it points to."""
    words = ctypes.create_string_buffer(number.to_bytes(size, "little"), size)
    lanes = Pointers(*[ctypes.addressof(words)] * LANES)
    lanes.words = words  # type: ignore[attr-defined]
    return lanes


def _lanes(buffer: Any) -> Any:
    start = ctypes.addressof(buffer)
    return Pointers(*range(start, start + SIZE * LANES, SIZE))
