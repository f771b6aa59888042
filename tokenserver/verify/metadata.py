"""Where an issuer keeps its keys: authorization server metadata (RFC 8414)."""

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


def metadata_uri(issuer: str) -> str:
    """ValueError unless `issuer` is an https URL, or http on loopback, without a query or fragment."""
    parts = urlsplit(https.check_uri(issuer))
    if "?" in issuer or "#" in issuer:
        raise ValueError("an issuer has no query and no fragment")
    # RFC 8414 section 3.1: the well-known part goes between host and path, after a final slash was taken off.
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"


def _jwks_uri(issuer: str, fetch: https.Fetch, clock: Callable[[], float]) -> Callable[[], str]:
    """A function that reads the metadata at its first call, and again when it grew old."""
    uri = metadata_uri(issuer)

    def load() -> tuple[str, float]:
        document = fetch(uri)
        metadata = json_object(document.body)
        # RFC 8414 section 3.3: identical to the issuer we asked for, or the data MUST NOT be used.
        if metadata.get("issuer") != issuer:
            raise ValueError("the metadata is for another issuer")
        jwks_uri = https.check_uri(str(metadata.get("jwks_uri")))
        return jwks_uri, DEFAULT_AGE if document.max_age is None else document.max_age

    return Cached(load, clock=clock).get


def issuer_keys(
    issuer: str,
    *,
    timeout: float = 5,
    fetch: https.Fetch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> JWKSKeys:
    """The keys at the place that the metadata names. Nothing is read before the first key is looked for."""
    fetch = fetch or partial(https.fetch, timeout=timeout)
    return JWKSKeys(_jwks_uri(issuer, fetch, clock), fetch=fetch, clock=clock)
