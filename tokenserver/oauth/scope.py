"""Scopes: what was asked for, what may be asked for, and what the token then covers (RFC 6749 section 3.3)."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.clients.metadata import STANDARD_SCOPES as STANDARD
from tokenserver.clients.registry import Client
from tokenserver.oauth.errors import InvalidScope

KNOWN: Final = STANDARD | frozenset(PERMISSIONS)
SYNTAX: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+( [\x21\x23-\x5B\x5D-\x7E]+)*")


def parse(text: str | None) -> frozenset[str] | None:
    """The scopes asked for; None when the parameter was left out. Raises InvalidScope for unknown ones."""
    if text is None:
        return None
    if not SYNTAX.fullmatch(text) or not (asked := frozenset(text.split(" "))) <= KNOWN:
        raise InvalidScope
    return asked


def askable(client: Client, asked: frozenset[str] | None) -> frozenset[str] | None:
    """What a client asks for before anybody knows for which user: as `for_user`, but for what the user holds. None:
    all of that. Raises InvalidScope."""
    if client.first_party:
        return asked
    if asked is None:
        return client.scope
    if not asked <= client.scope:
        raise InvalidScope
    return asked


def for_user(client: Client, asked: frozenset[str] | None, held: frozenset[str]) -> frozenset[str]:
    """What a user's token covers: permissions asked for that the user holds and the client may ask for.

    Nothing asked for: all that the client registered; for a first-party client all that the user holds.
    """
    if asked is None:
        return held if client.first_party else narrowed(client.scope, held)
    if not client.first_party and not asked <= client.scope:
        raise InvalidScope
    granted = narrowed(asked, held)
    if not granted:
        raise InvalidScope("The user holds nothing of the scope that was asked for.")
    return granted


def for_client(client: Client, asked: frozenset[str] | None) -> frozenset[str]:
    """What a client's own token covers. The standard scopes speak of a user, and there is none."""
    own = client.scope - STANDARD
    if asked is None:
        return own
    if not asked <= own:
        raise InvalidScope
    return asked


def narrowed(scope: Iterable[str], held: frozenset[str]) -> frozenset[str]:
    return frozenset(s for s in scope if s in STANDARD or s in held)


def to_text(scope: Iterable[str]) -> str:
    """`openid` first, as people expect it; the rest sorted."""
    return _to_text(frozenset(scope))


@lru_cache(maxsize=1024)
def _to_text(scope: frozenset[str]) -> str:
    return " ".join(sorted(scope, key=lambda s: (s != "openid", s not in STANDARD, s)))
