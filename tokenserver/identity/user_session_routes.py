"""`/users/{user_id}/sessions`: somebody's live sessions, for those who may change users."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Blueprint

from tokenserver.errors import NotFound
from tokenserver.identity.people import People
from tokenserver.identity.routes import session_page
from tokenserver.identity.schemas import SessionPageSchema
from tokenserver.identity.user_routes import Rights
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import EndReason, Sessions
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, rehearsable
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses


def blueprint(*, feed: Feed, people: People, rights: Rights, sessions: Sessions, pages: Pages) -> Blueprint:
    routes = Blueprint("user_sessions", __name__, url_prefix="/users/<uuid:user_id>/sessions")

    # Where somebody signed in from is not for everybody who may look an account up.
    @routes.get("")
    @requires("users:write")
    @queries(PageQuerySchema)
    @gives(SessionPageSchema)
    @refuses((404, "user_not_found"))
    def list_user_sessions(user_id: UUID, query: dict[str, Any]) -> dict[str, Any]:
        """List a user's live sessions, newest first."""
        if people.find(user_id) is None:
            raise NotFound("There is no such user.", code="user_not_found")
        return session_page(sessions, pages, user_id, query)

    @routes.delete("")
    @requires("users:write")
    @rehearsable
    @gives(None, 204)
    @refuses((403, "exceeds_own_permissions"), (404, "user_not_found"))
    def end_user_sessions(user_id: UUID, *, dry_run: bool) -> None:
        """End all sessions of a user at once, with the tokens issued in them."""
        feed.change(_ending(user_id, None, dry_run=dry_run))

    @routes.delete("/<uuid:session_id>")
    @requires("users:write")
    @rehearsable
    @gives(None, 204)
    @refuses((403, "exceeds_own_permissions"), (404, "user_not_found"), (404, "session_not_found"))
    def end_user_session(user_id: UUID, session_id: UUID, *, dry_run: bool) -> None:
        """End one session of a user at once, with the tokens issued in it."""
        feed.change(_ending(user_id, session_id, dry_run=dry_run))

    def _ending(user_id: UUID, session_id: UUID | None, *, dry_run: bool) -> Callable[[Transaction, Change], None]:
        def end(tx: Transaction, change: Change) -> None:
            rights.lock(tx)
            people.get(tx, user_id, for_update=True)
            rights.require_peer(tx, rights.read_all(tx, [user_id])[user_id].permissions)
            live = sessions.live_ids(tx, user_id=user_id, session_id=session_id)
            ended = sessions.end(tx, change, user_id=user_id, session_id=session_id, reason=EndReason.REVOKED)
            if session_id is not None and not ended:
                raise NotFound("There is no such session.", code="session_not_found")
            if dry_run:
                raise Rehearsed(Effect(session_count=len(live)))

        return end

    return routes
