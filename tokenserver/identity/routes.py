"""`/users/me`: one's own account and sessions."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from flask import Blueprint

from tokenserver.errors import NotFound
from tokenserver.identity.own_account import OwnAccount
from tokenserver.identity.people import People, Person
from tokenserver.identity.schemas import ProfileSchema, SessionPageSchema, UserSchema
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.identity.second_factors.reauthentication import demand_second
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import Session
from tokenserver.tokens.sessions import EndReason, Sessions
from tokenserver.verify.flask import requires
from tokenserver.web.holder import current_holder, current_user_id
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses, takes


class Held(Protocol):
    """What a user holds: `access` tells, and the two rooms are strangers."""

    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def permissions(self) -> frozenset[str]: ...


def blueprint(
    *, feed: Feed, people: People, accounts: OwnAccount, factors: SecondFactors, sessions: Sessions, pages: Pages
) -> Blueprint:
    routes = Blueprint("users_me", __name__, url_prefix="/users/me")

    @routes.get("")
    @requires()
    @gives(UserSchema)
    @refuses((403, "user_required"))
    def get_me() -> dict[str, Any]:
        """Show one's own account."""
        return own_account(people)

    @routes.put("")
    @requires()
    @takes(ProfileSchema)
    @gives(UserSchema)
    @refuses(
        (403, "user_required"),
        (403, "reauthentication_required"),
        (403, "invalid_credentials"),
        (403, "second_factor_required"),
        (403, "invalid_otp"),
        (409, "username_taken"),
        (409, "email_taken"),
        (429, "too_many_requests"),
    )
    def put_me(body: dict[str, Any]) -> dict[str, Any]:
        """Change one's own account; names and the password with the password, and the second factor if there is
        one: by `otp`, or by a token from a sign-in of less than five minutes ago with it."""
        session_id = current_holder().session_id
        changed = accounts.change(_person(people), session_id, body, partial(demand_second, factors))
        return user_body(changed, current_holder())

    @routes.get("/sessions")
    @requires()
    @queries(PageQuerySchema)
    @gives(SessionPageSchema)
    @refuses((403, "user_required"))
    def list_sessions(query: dict[str, Any]) -> dict[str, Any]:
        """List one's live sessions, newest first."""
        return session_page(sessions, pages, current_user_id(), query)

    @routes.delete("/sessions/<uuid:session_id>")
    @requires()
    @gives(None, 204)
    @refuses((403, "user_required"), (404, "session_not_found"))
    def end_session(session_id: UUID) -> None:
        """End one of one's sessions, with the tokens issued in it."""
        user_id = current_user_id()

        def end(tx: Transaction, change: Change) -> None:
            if not sessions.end(tx, change, user_id=user_id, session_id=session_id, reason=EndReason.REVOKED):
                raise NotFound("There is no such session.", code="session_not_found")

        feed.change(end)

    return routes


def own_account(people: People) -> dict[str, Any]:
    """Of the holder of this request's token. Raises Forbidden `user_required`."""
    return user_body(_person(people), current_holder())


def _person(people: People) -> Person:
    person = people.find(current_user_id())
    if person is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return person


def user_body(person: Person, held: Held) -> dict[str, Any]:
    account = {field.name: getattr(person, field.name) for field in fields(person)}
    if "phone_number" not in person.claims:
        del account["phone_number_verified"]
    return account | dict(person.claims) | {"roles": list(held.roles), "permissions": sorted(held.permissions)}


def session_page(sessions: Sessions, pages: Pages, user_id: UUID, query: Mapping[str, Any]) -> dict[str, Any]:
    """`query`: loaded by `PageQuerySchema`. `current`: the session that asks."""
    limit, listing = query["limit"], f"sessions {user_id}"
    position = pages.position(listing, query)
    before = (datetime.fromisoformat(position[0]), UUID(position[1])) if position else None
    found = sessions.of_user(user_id, limit=limit + 1, before=before)
    page = pages.page(listing, found, limit, lambda row: [row[0].created_at.isoformat(), str(row[0].id)])
    mine = current_holder().session_id
    return page | {"items": [_session_body(session, used, mine) for session, used in page["items"]]}


def _session_body(session: Session, used: datetime, mine: UUID | None) -> dict[str, Any]:
    return {
        "id": session.id,
        "client_id": session.client_id,
        "created_at": session.created_at,
        "last_used_at": used,
        "expires_at": session.expires_at,
        "address": session.address,
        "user_agent": session.user_agent,
        "current": session.id == mine,
    }
