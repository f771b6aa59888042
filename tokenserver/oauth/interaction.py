"""Pending interactions: what a browser asked for and can only get when its user has signed in or consented
(RFC 6749 section 3.1). They lie in Redis for an hour.
"""

import hashlib
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenserver.config import Settings
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.storage.feed import Feed, now_ms
from tokenserver.storage.redis import UnknownContent
from tokenserver.storage.shelf import Shelf
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

LIFETIME_SECONDS: Final = 3600
# Anybody may begin one, and Redis must not fill up with them: of one, and of all from one network.
MAX_BYTES: Final = 64 * 1024
ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# A path of this server: not `//host`, `/\host`, nor what a browser strips to become one (CVE-2023-49438).
LOCAL_PATH: Final = re.compile(r"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")


@dataclass(frozen=True, slots=True)
class Interaction:
    """`began_at` in ms since 1970. `resume`: the path of this server to go on at. `data`: JSON of who began it; the
    pages read `login_hint`, `ui_locales`, `redirect_uri`, `scope`, `claims` and `step_up` there (the session that
    lacks nothing but a second factor), and write `consent` and `consent_user`.
    """

    id: str
    began_at: int
    resume: str
    client_id: str | None
    data: Mapping[str, Any]


class Interactions:
    """Each belongs to the browser that began it, known by its `browser` cookie: nobody can hand somebody else a
    half-finished sign-in. Neither the id nor the cookie is stored, so a dump of Redis holds nothing to go on with.

    Every method raises StoreUnavailable.
    """

    def __init__(self, feed: Feed, limits: RateLimits, settings: Settings) -> None:
        self._shelf = Shelf(feed, "i")
        self._limits = limits
        self._begun = Limit.of("authorize", settings.limit_authorize)

    def begin(self, browser: str, *, resume: str, client_id: str | None, data: Mapping[str, Any]) -> Interaction:
        """`resume`: "{id}" in it stands for the new id. Raises InvalidRequest (too much data), TooManyRequests."""
        new_id = secrets.token_urlsafe(32)
        resume = resume.replace("{id}", new_id)
        if not LOCAL_PATH.fullmatch(resume):
            raise ValueError("not a path of this server")
        interaction = Interaction(new_id, now_ms(), resume, client_id, data)
        value = _written(interaction, browser)
        self._limits.take((self._begun, network_of(current().address)))
        self._shelf.ask(_digest(new_id), lambda c, key: c.set(key, value, ex=LIFETIME_SECONDS))
        return interaction

    def find(self, interaction_id: str, browser: str | None) -> Interaction | None:
        """None for an unknown one, an expired one, and one of another browser."""
        if browser is None or not ID.fullmatch(interaction_id):
            return None
        try:
            fields = json.loads(self._shelf.ask(_digest(interaction_id), lambda c, key: c.get(key)) or "{}")
            if not secrets.compare_digest(fields["b"], _digest(browser)):
                return None
            resume = fields["r"].replace("{id}", interaction_id)
            if not LOCAL_PATH.fullmatch(resume):
                return None
            return Interaction(interaction_id, fields["t"], resume, fields["c"], fields["d"])
        except (UnknownContent, ValueError, TypeError, KeyError, AttributeError):
            return None  # there is none, or somebody else wrote it

    def replace(self, interaction: Interaction, browser: str) -> None:
        """What has ended meanwhile stays ended, and no replacement lives longer than the first."""
        value = _written(interaction, browser)
        self._shelf.ask(_digest(interaction.id), lambda c, key: c.set(key, value, xx=True, keepttl=True))

    def end(self, interaction_id: str) -> None:
        self._shelf.ask(_digest(interaction_id), lambda c, key: c.delete(key))


def _written(interaction: Interaction, browser: str) -> str:
    fields = {
        "b": _digest(browser),
        "t": interaction.began_at,
        "r": interaction.resume.replace(interaction.id, "{id}"),
        "c": interaction.client_id,
        "d": dict(interaction.data),
    }
    value = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if len(value.encode()) > MAX_BYTES:
        raise InvalidRequest("The request is too large.")
    return value


def _digest(text: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
