"""The document behind a `sector_identifier_uri` (OpenID Connect Dynamic Client Registration 1.0 section 5)."""

from typing import Final

from flask import json

from tokenserver.clients.metadata import Metadata
from tokenserver.errors import FieldError, Invalid
from tokenserver.web.fetch import Fetcher, FetchFailed

ACCEPT: Final = "application/json"


def check(metadata: Metadata, fetcher: Fetcher) -> None:
    """Asks somebody else's server, so outside of any transaction. Raises Invalid."""
    uri = metadata.sector_identifier_uri
    if uri is None:
        return
    try:
        listed = json.loads(fetcher.get(uri, accept=ACCEPT).body)
    except (FetchFailed, ValueError, RecursionError):
        raise Invalid([FieldError("sector_identifier_uri", "It can't be read as JSON.")]) from None
    # Section 5: the values of the registered redirect_uris MUST be included in the elements of the array.
    if not isinstance(listed, list) or not all(uri in listed for uri in metadata.redirect_uris):
        raise Invalid([FieldError("sector_identifier_uri", "It must list all of the redirect_uris.")])
