"""Signatures eight at a time, for what a loop answers in one turn (docs/adr/0032 and 0038).

AVX-512 IFMA multiplies in eight lanes, and one signature can't fill them. Intel's crypto_mb computes eight at once,
in the time that OpenSSL takes for two to five. It is used where the extra `multi-buffer` is installed and the
processor can.
"""

import logging
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from tokenserver.storage.aside import loop
from tokenserver.tokens.lanes import LANES, CryptoMb, LaneKey, Sign, WrongSignature

logger = logging.getLogger("tokenserver.keys")

# In the order in which each finds those that it needs.
LIBRARIES: Final = {
    "intel-cmplr-lib-rt": ("libintlc.so.5", "libimf.so", "libirng.so", "libsvml.so"),
    "ipp-crypto": ("libcrypto_mb.so",),
}


class MultiBuffer:
    """`is_sound`: whether the library may be asked."""

    def __init__(self, library: CryptoMb) -> None:
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
        if self.is_sound and len(inputs) >= key.fewest:
            try:
                filled = [*inputs, *[inputs[0]] * (LANES - len(inputs))]
                return key.sign(self._library, filled)[: len(inputs)]
            except WrongSignature as error:
                self.is_sound = False
                logger.critical("crypto_mb made a wrong signature, and this process asks it no more: %s", error)
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


def shared(key: LaneKey) -> Sign:
    """By itself, or together with what others in the same loop have to sign."""

    def sign(signing_input: bytes) -> bytes:
        here = loop()
        signs = None if here is None else found().signs
        if here is None or signs is None:
            return key.alone(signing_input)
        signature: bytes = here.ask(signs, (key, signing_input))
        return signature

    return sign


def _has_ifma() -> bool:
    return " avx512ifma " in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def _paths() -> list[str]:
    """Raises PackageNotFoundError."""
    paths: list[str] = []
    for package, names in LIBRARIES.items():
        files = {file.name: str(file.locate()) for file in metadata.files(package) or ()}
        paths += [files.get(name, name) for name in names]
    return paths
