"""Who holds the token of this request, and what it lets them do."""

from dataclasses import dataclass
from typing import cast
from uuid import UUID

from tokenserver.errors import Forbidden
from tokenserver.web.request_context import current


@dataclass(frozen=True, slots=True)
class Holder:
    """`permissions`: what the user, or the client acting for itself, holds now. `scope`: what the token covers."""

    subject: str
    client_id: str
    user_id: UUID | None
    session_id: UUID | None
    roles: tuple[str, ...]
    permissions: frozenset[str]
    scope: frozenset[str]

    def may(self, permission: str) -> bool:
        return permission in self.permissions and permission in self.scope


def demand(permission: str) -> None:
    """Behind `@requires()`, for what depends on the resource. Raises Forbidden `permission_denied`."""
    context = current()
    context.demanded += (permission,)
    if not current_holder().may(permission):
        raise Forbidden("You don't hold the permission that this needs.", code="permission_denied")
    context.allowed += (permission,)


def current_holder() -> Holder:
    """Behind `@requires`."""
    return cast("Holder", current().holder)


def current_user_id() -> UUID:
    """Behind `@requires`, for what only people have. Raises Forbidden `user_required` for a client's own token."""
    user_id = current_holder().user_id
    if user_id is None:
        raise Forbidden("This needs a token of a user.", code="user_required")
    return user_id
