"""Whether the user of a browser is still the one that a client knows (OIDC Session Management sections 2 and 3.2).

The *browser state* is a word that a script of the check_session iframe can read from a cookie. It is made from the
session's id, so that it changes when somebody else signs in or the user signs out, not when the same user only
proves again who they are; and any page may set it again when the browser lost it.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def browser_state(session_id: UUID) -> str:
    return _word(hashlib.sha256(b"op_browser_state " + session_id.bytes).digest())


def session_state(client_id: str, redirect_uri: str, state: str) -> str:
    """The parameter of an authorization response (section 2), which the client's page asks about later."""
    salt = secrets.token_urlsafe(12)
    # Section 3.2: what the client's page will be known by, the browser's word and a salt
    text = f"{client_id} {origin_of(redirect_uri)} {state} {salt}"
    return f"{hashlib.sha256(text.encode()).hexdigest()}.{salt}"


def origin_of(uri: str) -> str:
    """As a browser tells it (RFC 6454 section 6.1): in small letters, without the scheme's own port."""
    parts = urlsplit(uri)
    if parts.scheme not in DEFAULT_PORTS:
        return "null"  # an app, which embeds nothing
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}" + (
        "" if parts.port in {None, DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    )


def _word(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
