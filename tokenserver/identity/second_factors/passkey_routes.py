"""`/users/me/second-factors/passkeys`: one's own passkeys, for front ends on this server's own origin."""

from typing import Any
from uuid import UUID

from flask import Blueprint

from tokenserver.identity.login import Login
from tokenserver.identity.people import People
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.identity.second_factors.models import Passkey
from tokenserver.identity.second_factors.passkeys import Passkeys
from tokenserver.identity.second_factors.reauthentication import demand, demand_recent
from tokenserver.identity.second_factors.routes import REAUTHENTICATION, TOO_LONG_AGO, person
from tokenserver.identity.second_factors.schemas import (
    AddedPasskeySchema,
    CreationOptionsSchema,
    PasskeyNameSchema,
    PasskeySchema,
    ReauthenticationSchema,
    RegistrationSchema,
)
from tokenserver.verify.flask import requires
from tokenserver.web.holder import current_holder, current_user_id
from tokenserver.web.wire import gives, refuses, takes


def blueprint(*, people: People, login: Login, factors: SecondFactors, passkeys: Passkeys) -> Blueprint:
    routes = Blueprint("passkeys", __name__, url_prefix="/users/me/second-factors/passkeys")

    @routes.post("/options")
    @requires()
    @takes(ReauthenticationSchema)
    @gives(CreationOptionsSchema)
    @refuses(*REAUTHENTICATION, (409, "passkeys_unavailable"), (409, "too_many_passkeys"))
    def begin_passkey(body: dict[str, Any]) -> dict[str, Any]:
        """Begin to register a passkey (WebAuthn)."""
        me = person(people)
        demand(login, factors, me, body)
        return {"options": passkeys.creation_options(me, _place())}

    @routes.post("")
    @requires()
    @takes(RegistrationSchema)
    @gives(AddedPasskeySchema, 201)
    @refuses((403, "user_required"), (409, "passkey_exists"), (409, "too_many_passkeys"), (403, "invalid_passkey"))
    def register_passkey(body: dict[str, Any]) -> dict[str, Any]:
        """Register the passkey that was made with these options. With the first factor come recovery codes, shown
        this once."""
        added = passkeys.register(current_user_id(), body["name"], body["credential"], _place())
        names = ("id", "name", "is_backed_up", "created_at", "used_at")
        return {name: getattr(added.passkey, name) for name in names} | {"recovery_codes": added.recovery_codes}

    @routes.put("/<uuid:passkey_id>")
    @requires()
    @takes(PasskeyNameSchema)
    @gives(PasskeySchema)
    @refuses((403, "user_required"), (404, "passkey_not_found"))
    def rename_passkey(passkey_id: UUID, body: dict[str, Any]) -> Passkey:
        """Give a passkey another name."""
        return passkeys.rename(current_user_id(), passkey_id, body["name"])

    @routes.delete("/<uuid:passkey_id>")
    @requires()
    @gives(None, 204)
    @refuses((403, "user_required"), TOO_LONG_AGO, (404, "passkey_not_found"))
    def remove_passkey(passkey_id: UUID) -> None:
        """Remove a passkey. Needs a sign-in of less than five minutes ago, with a second factor."""
        me = person(people)
        demand_recent(factors, me)
        passkeys.remove(me.id, passkey_id)

    return routes


def _place() -> str:
    """The session of this token: where the options were asked for, the answer comes too."""
    return f"session {current_holder().session_id}"
