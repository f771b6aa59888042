"""The access token of a request: the Authorization header, and nowhere else (RFC 6750 section 2.1)."""

import re
from typing import Final
from urllib.parse import parse_qsl

from tokenserver.verify.errors import InvalidRequest, MissingCredentials

B64TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def credentials(authorization: str | None, *, elsewhere: bool = False) -> str:
    """The token. MissingCredentials when none was sent, InvalidRequest when it was sent in a wrong way.

    `elsewhere`: whether an `access_token` parameter came in the query or in a form body.
    """
    # RFC 6750 section 2: one method per request. The other two are not supported at all: RFC 9700 section 4.3.2
    # forbids the query, where tokens end up in logs and histories.
    if elsewhere:
        raise InvalidRequest("access_token parameter")
    # RFC 9110 section 11.1: the scheme is case-insensitive. Another scheme is not ours to judge.
    scheme, _, token = (authorization or "").strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise MissingCredentials("no bearer credentials")
    # Two headers joined by a comma don't match either.
    return only(token.lstrip(" "))


def only(token: str) -> str:
    """RFC 6750 section 2.1: exactly one b64token. Raises InvalidRequest."""
    if not B64TOKEN.fullmatch(token):
        raise InvalidRequest("not one b64token")
    return token


def in_query(query_string: str) -> bool:
    """Whether the query holds an access_token, however its name is percent-encoded."""
    return bool(query_string) and any(
        name == "access_token" for name, _ in parse_qsl(query_string, keep_blank_values=True)
    )
