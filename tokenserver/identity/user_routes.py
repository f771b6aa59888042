"""`/users`: everybody's accounts, for those who may see and change them."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol
from uuid import UUID

from flask import Blueprint

from tokenserver.identity.people import People, Person
from tokenserver.identity.routes import Held, user_body
from tokenserver.identity.schemas import RolesSchema, StatusSchema, UserPageSchema, UserQuerySchema, UserSchema
from tokenserver.identity.status import Managers, change_status
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import Sessions
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, Subject, rehearsable
from tokenserver.web.pagination import Pages
from tokenserver.web.wire import gives, queries, refuses, require_match, takes


class Rights(Managers, Protocol):
    """What users hold, and its guards: `access` knows them, and the two rooms are strangers."""

    def read_all(self, tx: Transaction, user_ids: Collection[UUID]) -> Mapping[UUID, Held]: ...
    def replace(self, tx: Transaction, change: Change, user_id: UUID, names: Sequence[str]) -> None: ...
    def require_peer(self, tx: Transaction, permissions: AbstractSet[str]) -> None: ...


def blueprint(*, feed: Feed, people: People, rights: Rights, sessions: Sessions, pages: Pages) -> Blueprint:
    routes = Blueprint("users", __name__, url_prefix="/users")

    @routes.get("")
    @requires("users:list")
    @queries(UserQuerySchema)
    @gives(UserPageSchema)
    def list_users(query: dict[str, Any]) -> dict[str, Any]:
        """List or search the users, by user name."""
        text, status, limit = query["q"], query["status"], query["limit"]
        listing = f"users {status} {text}"
        position = pages.position(listing, query)

        def read(tx: Transaction) -> list[dict[str, Any]]:
            after = position[0] if position else None
            found = people.search(tx, text=text, status=status, limit=limit + 1, after=after)
            held = rights.read_all(tx, [user.id for user in found])
            return [user_body(Person.of(user), held[user.id]) for user in found]

        return pages.page(listing, feed.database.read(read), limit, lambda user: [user["username"]])

    @routes.get("/<uuid:user_id>")
    @requires("users:read")
    @gives(UserSchema, etag=True)
    @refuses((404, "user_not_found"))
    def get_user(user_id: UUID) -> dict[str, Any]:
        """Show a user."""
        return feed.database.read(lambda tx: user_body(*_read(tx, user_id)))

    @routes.put("/<uuid:user_id>/roles")
    @requires("roles:assign")
    @takes(RolesSchema)
    @rehearsable
    @gives(UserSchema, etag=True)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "user_not_found"),
        (409, "last_admin"),
        (412, "precondition_failed"),
        (422, "unknown_role"),
    )
    def put_roles(user_id: UUID, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Replace the roles of a user; it holds from the next request on."""

        def replace(tx: Transaction, change: Change) -> dict[str, Any]:
            person, before = _locked(tx, user_id)
            rights.replace(tx, change, user_id, body["roles"])
            after = _held(tx, user_id)
            if dry_run:
                raise Rehearsed(_effect_of_roles(tx, person, before, after))
            return user_body(person, after)

        return feed.change(replace)

    @routes.put("/<uuid:user_id>/status")
    @requires("users:write")
    @takes(StatusSchema)
    @rehearsable
    @gives(UserSchema, etag=True)
    @refuses(
        (403, "exceeds_own_permissions"), (404, "user_not_found"), (409, "last_admin"), (412, "precondition_failed")
    )
    def put_status(user_id: UUID, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Disable a user, which ends every session at once, or enable them again."""

        def replace(tx: Transaction, change: Change) -> dict[str, Any]:
            before, held = _locked(tx, user_id)
            live = len(sessions.live_ids(tx, user_id=user_id))
            if body["status"] != before.status:
                rights.require_peer(tx, held.permissions)
            user = change_status(
                tx,
                change,
                user_id,
                body["status"],
                permissions=held.permissions,
                people=people,
                managers=rights,
                sessions=sessions,
            )
            after = Person.of(user)
            if dry_run:
                raise Rehearsed(_effect_of_status(before, after, held, live))
            return user_body(after, held)

        return feed.change(replace)

    def _read(tx: Transaction, user_id: UUID, *, for_update: bool = False) -> tuple[Person, Held]:
        person = Person.of(people.get(tx, user_id, for_update=for_update))
        return person, _held(tx, user_id)

    def _held(tx: Transaction, user_id: UUID) -> Held:
        return rights.read_all(tx, [user_id])[user_id]

    def _locked(tx: Transaction, user_id: UUID) -> tuple[Person, Held]:
        """The user to change, as the caller saw them."""
        rights.lock(tx)
        person, held = _read(tx, user_id, for_update=True)
        require_match(UserSchema, user_body(person, held))
        return person, held

    def _effect_of_roles(tx: Transaction, person: Person, before: Held, after: Held) -> Effect:
        # Who is disabled may do nothing, whatever they hold.
        gains, loses = after.permissions - before.permissions, before.permissions - after.permissions
        if not person.is_active or not gains | loses:
            return Effect()
        return _effect(person, gains=gains, loses=loses, live=len(sessions.live_ids(tx, user_id=person.id)))

    return routes


def _effect_of_status(before: Person, after: Person, held: Held, live: int) -> Effect:
    if before.status == after.status:
        return Effect()
    nothing: frozenset[str] = frozenset()
    gains, loses = (held.permissions, nothing) if after.is_active else (nothing, held.permissions)
    return _effect(after, gains=gains, loses=loses, live=live)


def _effect(person: Person, *, gains: AbstractSet[str], loses: AbstractSet[str], live: int) -> Effect:
    subject = Subject(str(person.id), sorted(gains), sorted(loses), person.username)
    return Effect(users=[subject], user_count=1, session_count=live)
