"""Where an issuer keeps its keys and its revocation list: authorization server metadata (RFC 8414)."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from tokenserver.verify import https
from tokenserver.verify.cached import Cached
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import JWKSKeys

DEFAULT_AGE: Final = 300
KEYS: Final = "jwks_uri"
# A member of our own; the registry of RFC 8414 has none for this.
REVOCATIONS: Final = "revocation_list_uri"


def metadata_uri(issuer: str) -> str:
    """ValueError unless `issuer` is an https URL, or http on loopback, without a query or fragment."""
    parts = urlsplit(https.check_uri(issuer))
    if "?" in issuer or "#" in issuer:
        raise ValueError("an issuer has no query and no fragment")
    # RFC 8414 section 3.1: the well-known part goes between host and path, after a final slash was taken off.
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"


class Metadata:
    """Where the issuer says that things are. Nothing is read before the first question, and it is read again when
    it grew old."""

    def __init__(self, issuer: str, fetch: https.Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._uri = metadata_uri(issuer)
        self._fetch = fetch
        self._members = Cached(self._load, clock=clock)

    def jwks_uri(self) -> str:
        return self._members.get()[KEYS]

    def revocation_list_uri(self) -> str:
        """ValueError where the issuer publishes none."""
        return https.check_uri(self._members.get().get(REVOCATIONS, ""))

    def _load(self) -> tuple[dict[str, str], float]:
        document = self._fetch(self._uri)
        metadata = json_object(document.body)
        # RFC 8414 section 3.3: identical to the issuer we asked for, or the data MUST NOT be used.
        if metadata.get("issuer") != self._issuer:
            raise ValueError("the metadata is for another issuer")
        https.check_uri(str(metadata.get(KEYS)))
        members = {str(name): str(metadata[name]) for name in (KEYS, REVOCATIONS) if name in metadata}
        return members, DEFAULT_AGE if document.max_age is None else document.max_age


def issuer_keys(
    issuer: str,
    *,
    timeout: float = 5,
    fetch: https.Fetch | None = None,
    metadata: Metadata | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> JWKSKeys:
    """The keys at the place that the metadata names. Nothing is read before the first key is looked for."""
    fetch = fetch or partial(https.fetch, timeout=timeout)
    metadata = metadata or Metadata(issuer, fetch, clock)
    return JWKSKeys(metadata.jwks_uri, fetch=fetch, clock=clock)
