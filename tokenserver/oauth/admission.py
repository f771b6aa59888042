"""Whether a request with a token may pass, for every protected route: one round trip to Redis, no SQL once its rows
are cached.
"""

from typing import Final

from tokenserver.audit.events import Event
from tokenserver.audit.trail import Trail
from tokenserver.errors import Forbidden, Refused, StoreUnavailable
from tokenserver.oauth.active_token import ActiveTokens
from tokenserver.storage.feed import Feed
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import Refusal
from tokenserver.web.request_context import current

MAX_TRIES: Final = 8


class Admission:
    """Decides from memory. The round trip that writes the event also says whether the memory was up to date."""

    def __init__(self, feed: Feed, active_tokens: ActiveTokens, trail: Trail) -> None:
        self._feed = feed
        self._active_tokens = active_tokens
        self._trail = trail

    def admit(self, claims: Claims, permissions: tuple[str, ...]) -> None:
        """Raises a Refusal of the token, Forbidden `permission_denied`, StoreUnavailable when nobody can tell."""
        self._admit(claims, permissions, permissions)

    def admit_by_scope(self, claims: Claims, *scope: str) -> None:
        """Like `admit`, for what the user let the client have, whatever they may do themselves."""
        self._admit(claims, (), scope)

    def _admit(self, claims: Claims, permissions: tuple[str, ...], scope: tuple[str, ...]) -> None:
        context = current()
        context.actor, context.client_id = self._active_tokens.actor(claims), claims.client_id
        context.demanded = permissions
        if not self._feed.is_informed:
            self._feed.sync()
        for _ in range(MAX_TRIES):
            known = self._feed.known()
            try:
                self._judge(claims, permissions, scope)
            except (Refusal, Refused):
                # A refusal is checked before it is given.
                self._feed.sync()
                if self._feed.known() == known:
                    raise
                continue
            asked = {"permissions": list(permissions)} if permissions else {}
            if self._trail.witness(known, self._trail.describe(Event.ACCESS_ALLOWED, details=asked)):
                return
        raise StoreUnavailable("redis", "the feed moves faster than this request")

    def _judge(self, claims: Claims, permissions: tuple[str, ...], scope: tuple[str, ...]) -> None:
        """Dead before too narrow, too narrow before not allowed."""
        holder = current().holder = self._active_tokens.judge(claims)
        claims.require(*scope)
        if not holder.permissions.issuperset(permissions):
            raise Forbidden("You don't hold the permission that this needs.", code="permission_denied")
