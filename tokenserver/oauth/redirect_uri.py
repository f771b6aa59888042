"""Whether a redirect URI is a registered one: the same string, character by character (RFC 9700 section 2.1)."""

from collections.abc import Sequence
from typing import Final

from tokenserver.clients.metadata import WEB_URI

# RFC 8252 section 7.3: an app on the user's machine listens on whatever port is free. `localhost` may be more than
# the loopback interface (section 8.3), so it gets no such freedom.
ANY_PORT: Final = frozenset({"127.0.0.1", "[::1]"})


def is_registered(registered: Sequence[str], given: str) -> bool:
    if given in registered:
        return True
    wanted = _without_port(given)
    return wanted is not None and any(_without_port(each) == wanted for each in registered)


def _without_port(uri: str) -> tuple[str, str] | None:
    """Host and what follows the port; None unless it is http on a loopback address."""
    web = WEB_URI.fullmatch(uri)
    if web is None or web[1] != "http" or web[2] not in ANY_PORT:
        return None
    if web[3] is not None and not 0 < int(web[3]) < 65536:
        return None
    return web[2], uri[web.end(3) if web[3] is not None else web.end(2) :]
