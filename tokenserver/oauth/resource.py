"""Resource indicators (RFC 8707): which of the resources that a client may ask for a token is meant for."""

from collections.abc import Sequence

from tokenserver.oauth.errors import InvalidTarget


def chosen(allowed: Sequence[str], asked: str | None) -> tuple[str, ...]:
    """`allowed`: by registration, or by the grant that the token descends from. `asked`: identifiers with spaces
    between them; None: all. Raises InvalidTarget."""
    if asked is None:
        return tuple(allowed)
    wanted = tuple(dict.fromkeys(asked.split(" ")))
    if not set(wanted) <= set(allowed):
        raise InvalidTarget
    return wanted
