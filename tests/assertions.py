"""Clients that prove by a JWT who they are (RFC 7523), and JWTs that are wrong in one chosen way."""

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tokenserver.rooms import Rooms

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RSA = RSAKey.generate_key(2048)
KEYS: dict[str, Any] = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ECKey.generate_key("P-256"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}
ABSENT: Any = object()


def segment(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, payload: Any, key: Any, alg: str) -> str:
    """Whatever the header says, by this key and algorithm."""
    signing_input = f"{segment(header)}.{segment(payload)}"
    signature = JWSRegistry.algorithms[alg].sign(signing_input.encode(), key)
    return f"{signing_input}.{segment(signature)}"


def public(key: str, **members: Any) -> dict[str, Any]:
    return dict(KEYS[key].as_dict(private=False)) | {"kid": key} | members


@dataclass
class Assertor:
    """A client and what it signs with. `form`: what it posts to be known."""

    client_id: str
    key: Any
    alg: str = "ES256"
    kid: str | None = "ES256"
    issuer: str = "http://127.0.0.1:8000"
    header: dict[str, Any] = field(default_factory=dict)

    def assertion(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        payload = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 60,
        }
        members = {"alg": self.alg, "kid": ABSENT if self.kid is None else self.kid} | self.header | (header or {})
        return signed(_there(members), _there(payload | claims), self.key, self.alg)

    def form(self, *, header: dict[str, Any] | None = None, **claims: Any) -> dict[str, str]:
        assertion = self.assertion(header=header, **claims)
        return {"client_assertion_type": TYPE, "client_assertion": assertion}


def _there(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}


def by_key(rooms: Rooms, alg: str = "ES256", client_id: str | None = None, **metadata: Any) -> Assertor:
    """A client of `private_key_jwt`."""
    client_id = client_id or f"job-{alg}"
    rooms.clients.create(client_id=client_id, **_metadata("private_key_jwt", {"jwks": _jwks(alg)} | metadata))
    return Assertor(client_id, KEYS[alg], alg, alg, rooms.settings.issuer)


def by_secret(rooms: Rooms, client_id: str = "mac", **metadata: Any) -> Assertor:
    """A client of `client_secret_jwt`."""
    _, secret = rooms.clients.create(client_id=client_id, **_metadata("client_secret_jwt", metadata))
    return Assertor(client_id, OctKey.import_key(str(secret)), "HS256", None, rooms.settings.issuer)


def _jwks(alg: str) -> dict[str, Any]:
    return {"keys": [public(alg)]}


def _metadata(method: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "client_name": "A job",
        "grant_types": ["client_credentials"],
        "scope": ["posts:create", "users:read"],
        "token_endpoint_auth_method": method,
    } | metadata
