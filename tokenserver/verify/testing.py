"""For the tests of a service: an issuer without a server, which signs whatever access token a test asks for."""

import time
import uuid
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.jwks import StaticKeys

LIFETIME: Final = 300


class PretendIssuer:
    """Has a key of its own, so that nobody but its own verifiers believes its tokens."""

    def __init__(self, issuer: str = "https://issuer.test") -> None:
        self.issuer = issuer
        self._key = ECKey.generate_key("P-256")
        self.jwks = {"keys": [{**self._key.as_dict(private=False), "kid": "test", "alg": "ES256", "use": "sig"}]}

    def verifier(self, audience: str, **options: Any) -> Verifier:
        """What a service has in place of `Verifier.for_issuer`. `options`: more of Verifier's, such as `check`."""
        return Verifier(issuer=self.issuer, audience=audience, keys=StaticKeys(self.jwks), **options)

    def token(self, audience: str, *, scope: str = "", **claims: Any) -> str:
        """A good access token of a user (RFC 9068), but for the `claims` given; None leaves one out."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "sub": str(uuid.uuid4()),
            "aud": audience,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": str(uuid.uuid4()),
            "client_id": "test",
            "scope": scope,
            "roles": [],
            "sid": str(uuid.uuid4()),
            "auth_time": now,
            "acr": "1",
            "amr": ["pwd"],
        }
        told = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "test"}
        return jwt.encode(header, told, self._key)
