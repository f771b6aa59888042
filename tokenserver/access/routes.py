"""`/roles`, `/permissions`, `/admin/explain`: what can be granted, and why somebody may do something."""

from typing import Any, Protocol

from flask import Blueprint

from tokenserver.access import effect, guards, roles
from tokenserver.access.explain import Owners, Person, explain
from tokenserver.access.models import Role
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.access.schemas import (
    ExplainQuerySchema,
    ExplanationSchema,
    NewRoleSchema,
    PermissionPageSchema,
    RoleMatchQuerySchema,
    RoleMatchSchema,
    RolePageSchema,
    RolePermissionsSchema,
    RoleQuerySchema,
    RoleSchema,
)
from tokenserver.errors import NotFound
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, rehearsable
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses, require_match, takes


class People(Protocol):
    """`identity` knows them, and the two rooms are strangers."""

    def find_any(self, user: str) -> Person | None:
        """By user name, e-mail address or id."""


def blueprint(*, feed: Feed, people: People, pages: Pages, owners: Owners) -> Blueprint:
    routes = Blueprint("access", __name__)

    @routes.get("/roles")
    @requires("roles:read")
    @queries(RoleQuerySchema)
    @gives(RolePageSchema)
    def list_roles(query: dict[str, Any]) -> dict[str, Any]:
        """List or search the roles by name, with what each permits and how many users hold it."""
        text, limit = query["q"], query["limit"]
        listing = f"roles {text}"
        position = pages.position(listing, query)

        def read(tx: Transaction) -> list[dict[str, Any]]:
            after = position[0] if position else None
            return roles.bodies(tx, roles.page(tx, text=text, limit=limit + 1, after=after))

        return pages.page(listing, feed.database.read(read), limit, lambda role: [role["name"]])

    @routes.get("/roles/<role>")
    @requires("roles:read")
    @gives(RoleSchema, etag=True)
    @refuses((404, "role_not_found"))
    def get_role(role: str) -> dict[str, Any]:
        """Show a role, by name or id."""
        return feed.database.read(lambda tx: roles.body(tx, roles.get(tx, role)))

    @routes.get("/roles/verify")
    @requires()
    @queries(RoleMatchQuerySchema)
    @gives(RoleMatchSchema)
    @refuses((404, "role_not_found"))
    def verify_role(query: dict[str, Any]) -> dict[str, Any]:
        """Tell whether the role of this name has this id."""
        name, role_id = query["role"], query["role_id"]
        found = feed.database.read(lambda tx: roles.id_of(tx, name))
        return {"match": found == role_id, "role": name, "role_id": role_id}

    @routes.post("/roles")
    @requires("roles:write")
    @takes(NewRoleSchema)
    @rehearsable
    @gives(RoleSchema, 201, etag=True)
    @refuses((403, "exceeds_own_permissions"), (409, "role_exists"), (422, "unknown_permission"))
    def create_role(body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Make a role of permissions that the caller holds."""

        def create(tx: Transaction, _change: Change) -> dict[str, Any]:
            guards.lock(tx)
            role = roles.create(tx, **body, own=guards.own_permissions(tx))
            if dry_run:
                raise Rehearsed(Effect())  # nobody holds it yet
            return roles.body(tx, role)

        return feed.change(create)

    @routes.put("/roles/<role>/permissions")
    @requires("roles:write")
    @takes(RolePermissionsSchema)
    @rehearsable
    @gives(RoleSchema, etag=True)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "role_not_found"),
        (409, "last_admin"),
        (412, "precondition_failed"),
        (422, "unknown_permission"),
    )
    def put_permissions(role: str, body: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Replace what a role permits, by its name or id; it holds from the next request on."""

        def replace(tx: Transaction, change: Change) -> dict[str, Any]:
            found = _locked(tx, role)
            own = guards.own_permissions(tx)
            gained, lost = roles.set_permissions(tx, change, found, body["permissions"], own=own)
            if dry_run:
                raise Rehearsed(effect.of_permissions(tx, found.id, gained, lost))
            return roles.body(tx, found)

        return feed.change(replace)

    @routes.delete("/roles/<role>")
    @requires("roles:write")
    @rehearsable
    @gives(None, 204)
    @refuses(
        (403, "exceeds_own_permissions"),
        (404, "role_not_found"),
        (409, "builtin_role"),
        (409, "role_in_use"),
        (412, "precondition_failed"),
    )
    def delete_role(role: str, *, dry_run: bool) -> None:
        """Delete a role that nobody holds, by its name or id."""

        def delete(tx: Transaction, _change: Change) -> None:
            roles.remove(tx, _locked(tx, role), own=guards.own_permissions(tx))
            if dry_run:
                raise Rehearsed(Effect())  # nobody held it

        feed.change(delete)

    @routes.get("/permissions")
    @requires("roles:read")
    @queries(PageQuerySchema)
    @gives(PermissionPageSchema)
    def list_permissions(query: dict[str, Any]) -> dict[str, Any]:
        """List the permissions that there are."""
        position = pages.position("permissions", query)
        found = [
            {"name": name, "description": PERMISSIONS[name]}
            for name in sorted(PERMISSIONS)
            if position is None or name > position[0]
        ]
        return pages.page("permissions", found, query["limit"], lambda permission: [permission["name"]])

    @routes.get("/admin/explain")
    @requires("roles:read")
    @queries(ExplainQuerySchema)
    @gives(ExplanationSchema)
    @refuses((404, "user_not_found"), (404, "resource_not_found"), (422, "unknown_permission"))
    def get_explanation(query: dict[str, Any]) -> dict[str, Any]:
        """Tell whether a user holds a permission: through which role, or what is missing."""
        person = people.find_any(query["user"])
        if person is None:
            raise NotFound("There is no such user.", code="user_not_found")
        return feed.database.read(lambda tx: explain(tx, person, query["permission"], query["resource"], owners))

    return routes


def _locked(tx: Transaction, role: str) -> Role:
    """The role to change, as the caller saw it."""
    guards.lock(tx)
    found = roles.get(tx, role)
    require_match(RoleSchema, roles.body(tx, found))
    return found
