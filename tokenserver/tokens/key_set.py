"""The ring as a process knows it at one moment: the JWK Set (RFC 7517 section 5), signers, MAC secrets."""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tokenserver.tokens.key_files import Material, RingUnusable, Stamp
from tokenserver.tokens.key_manifest import Entries, Entry
from tokenserver.tokens.signing_key import Signer, SigningKey
from tokenserver.verify.jwks import PublicKey

# Some verifiers take the first key of a set.
ORDER: Final = ("active", "next", "retired")


class KeySet:
    """Never changes, so a thread that holds one sees keys, JWKS and ETag that belong together.

    `entries`: the whole manifest. `good_until`: when the first of the published keys has to be withdrawn.
    `jwks_bytes` and `etag` (without quotes) are what the JWKS endpoint answers.
    """

    def __init__(self, entries: Entries, material: Mapping[str, Material], stamp: Stamp, now: float) -> None:
        """`material`: at least that of the entries published at `now`; no other is kept."""
        published = sorted((e for e in entries if e.is_published(now)), key=_rank)
        self.entries = entries
        self.stamp = stamp
        self.material = {e.kid: material[e.kid] for e in published}
        self.good_until = min((e.remove_after for e in published if e.remove_after is not None), default=math.inf)
        keys = [key for key in self.material.values() if isinstance(key, SigningKey)]
        self.jwks_bytes = json.dumps({"keys": [key.jwk for key in keys]}, separators=(",", ":")).encode()
        self.etag = sha256(self.jwks_bytes).hexdigest()[:32]
        self._public = {key.kid: key.public for key in keys}
        serving = {e.kid for e in published if e.state == "active"}
        self._signers = {key.signer.alg: key.signer for key in keys if key.kid in serving}
        self._secrets = tuple(secret for secret in self.material.values() if isinstance(secret, bytes))
        self._derived: dict[str, tuple[bytes, ...]] = {}

    def without_expired(self, now: float) -> "KeySet":
        return KeySet(self.entries, self.material, self.stamp, now)

    def only(self, entries: Entries) -> "KeySet":
        """Without the keys that the entries don't name."""
        named = {entry.kid for entry in entries}
        stays = tuple(entry for entry in self.entries if entry.kid in named and entry.kid in self.material)
        return KeySet(stays, self.material, self.stamp, -math.inf)

    def jwks(self) -> dict[str, Any]:
        """Public members alone; a copy."""
        jwks: dict[str, Any] = json.loads(self.jwks_bytes)
        return jwks

    def signer(self, alg: str) -> Signer:
        signer = self._signers.get(alg)
        if signer is None:
            raise RingUnusable(f"the key ring has no active key for {alg}", "`tokenserver init` creates it")
        return signer

    def find(self, kid: str) -> PublicKey | None:
        return self._public.get(kid)

    def secrets(self, purpose: str) -> tuple[bytes, ...]:
        """32 bytes for each secret of the ring (RFC 5869): make MACs with the first, accept those of all."""
        derived = self._derived.get(purpose)
        if derived is None:
            derived = tuple(HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(s) for s in self._secrets)
            self._derived[purpose] = derived
        return derived


def _rank(entry: Entry) -> tuple[int, int]:
    return ORDER.index(entry.state), -(entry.activated_at or 0)
