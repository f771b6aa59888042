"""`/account/sessions`: where one is signed in, and ending that."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from flask import Response
from werkzeug.exceptions import BadRequest

from tokenserver.clients.registry import FIRST_PARTY, Clients
from tokenserver.identity.notices import device_of
from tokenserver.pages.asked import Action, Asked, Fields, page
from tokenserver.storage.feed import Feed
from tokenserver.tokens.sessions import EndReason, Sessions

SHOWN: Final = 100


class SessionsPage:
    path = "/account/sessions"
    needs_recent_sign_in = False

    def __init__(self, feed: Feed, sessions: Sessions, clients: Clients) -> None:
        self._feed = feed
        self._sessions = sessions
        self._clients = clients
        self.actions: Mapping[str, Action] = {"end": self._end, "end-others": self._end_others}

    def show(self, asked: Asked) -> Response:
        mine = asked.signed_in.session_id
        found = self._sessions.of_user(asked.person.id, limit=SHOWN)
        # The one that looks on stands first.
        found.sort(key=lambda each: each[0].id != mine)
        shown = [self._described(session, used, mine) for session, used in found]
        return page("account_sessions.html", asked, sessions=shown)

    def _described(self, session: Any, used: Any, mine: UUID) -> dict[str, Any]:
        client = self._clients.find(session.client_id) if session.client_id != FIRST_PARTY else None
        return {
            "id": session.id,
            "device": device_of(session.user_agent),
            "address": session.address,
            "client": client.client_name or client.client_id if client else None,
            "since": session.created_at,
            "used": used,
            "is_current": session.id == mine,
        }

    def _end(self, asked: Asked, fields: Fields) -> None:
        try:
            session_id = UUID(fields.get("session", ""))
        except ValueError:
            raise BadRequest from None
        # One that has ended meanwhile is what they want, too.
        self._feed.change(
            lambda tx, change: self._sessions.end(
                tx, change, user_id=asked.person.id, session_id=session_id, reason=EndReason.REVOKED
            )
        )

    def _end_others(self, asked: Asked, _fields: Fields) -> None:
        mine = asked.signed_in.session_id
        self._feed.change(
            lambda tx, change: self._sessions.end(
                tx, change, user_id=asked.person.id, keep=mine, reason=EndReason.REVOKED
            )
        )
