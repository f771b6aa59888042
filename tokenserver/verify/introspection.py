"""Asks the issuer about one token (RFC 7662): what a verifier falls back on when its revocation list grew old."""

from base64 import b64encode
from urllib.parse import quote_plus

from tokenserver.verify import https
from tokenserver.verify.errors import RevocationsUnavailable
from tokenserver.verify.json_object import json_object


class Introspection:
    """For `Revocations(introspect=…)`. The client at `uri` is one that may ask about tokens for this resource."""

    def __init__(self, uri: str, client_id: str, client_secret: str, *, timeout: float = 5) -> None:
        self._uri = https.check_uri(uri)
        # RFC 6749 section 2.3.1: both halves are form-encoded first.
        credentials = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        self._headers = {"Authorization": f"Basic {b64encode(credentials).decode()}"}
        self._timeout = timeout

    def __call__(self, token: str) -> bool:
        """Whether the issuer calls it active. RevocationsUnavailable when it can't be asked."""
        try:
            answer = json_object(https.post(self._uri, {"token": token}, self._headers, timeout=self._timeout))
        except Exception as error:
            raise RevocationsUnavailable(f"introspection: {str(error) or type(error).__name__!a}") from error
        # RFC 7662 section 2.2: a boolean, and nothing that only looks like one.
        return answer.get("active") is True
