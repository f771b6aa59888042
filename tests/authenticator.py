"""A WebAuthn authenticator in software, with the browser that it is in (Level 3 sections 6 and 5.1)."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT: Final = 0x01
VERIFIED: Final = 0x04
ATTESTED: Final = 0x40


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One passkey. `count`: of signatures; None: it counts none. `verifies`: it asks its user for a PIN."""

    origin: str
    count: int | None = 0
    verifies: bool = True
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    user: bytes = b""

    def create(self, options: dict[str, Any], **client_data: Any) -> dict[str, Any]:
        self.user = unb64(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(cose)
        data = self._data(options["rp"]["id"], ATTESTED) + attested
        told = self._client_data("webauthn.create", options, client_data)
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        answer = self._answer(told, attestationObject=attestation)
        answer["response"]["transports"] = ["usb", "smoke signals"]
        return answer

    def get(self, options: dict[str, Any], **client_data: Any) -> dict[str, Any]:
        if self.count is not None:
            self.count += 1
        data = self._data(options["rpId"], 0)
        told = self._client_data("webauthn.get", options, client_data)
        signature = self.key.sign(data + hashlib.sha256(told).digest(), ec.ECDSA(SHA256()))
        return self._answer(told, authenticatorData=data, signature=signature, userHandle=self.user)

    def _data(self, rp_id: str, flags: int) -> bytes:
        flags |= PRESENT | (VERIFIED if self.verifies else 0)
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + (self.count or 0).to_bytes(4, "big")

    def _client_data(self, kind: str, options: dict[str, Any], changes: dict[str, Any]) -> bytes:
        told = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return json.dumps(told | changes).encode()

    def _answer(self, client_data: bytes, **response: bytes) -> dict[str, Any]:
        written = {name: b64(value) for name, value in response.items()} | {"clientDataJSON": b64(client_data)}
        return {"id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "response": written}
