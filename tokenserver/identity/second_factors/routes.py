"""`/users/me/second-factors`: one's own, and their reset by an admin."""

from typing import Any
from uuid import UUID

from flask import Blueprint

from tokenserver.errors import NotFound
from tokenserver.identity.login import Login
from tokenserver.identity.people import People, Person
from tokenserver.identity.second_factors import totp
from tokenserver.identity.second_factors.factors import Held, SecondFactors
from tokenserver.identity.second_factors.reauthentication import demand, demand_recent
from tokenserver.identity.second_factors.schemas import (
    EnrolmentSchema,
    FirstCodeSchema,
    ReauthenticationSchema,
    RecoveryCodesSchema,
    SecondFactorsSchema,
)
from tokenserver.identity.user_routes import Rights
from tokenserver.storage.sql import Database, Transaction
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, rehearsable
from tokenserver.web.holder import current_user_id
from tokenserver.web.wire import gives, refuses, takes

# Of everything that adds or takes away.
TOO_LONG_AGO = (401, "insufficient_user_authentication")
REAUTHENTICATION = (
    (403, "user_required"),
    TOO_LONG_AGO,
    (403, "invalid_credentials"),
    (403, "second_factor_required"),
    (403, "invalid_otp"),
    (429, "too_many_requests"),
)


def blueprint(
    *, database: Database, people: People, rights: Rights, login: Login, factors: SecondFactors, issuer_name: str
) -> Blueprint:
    """`issuer_name`: what an app calls this server."""
    routes = Blueprint("second_factors", __name__, url_prefix="/users")

    @routes.get("/me/second-factors")
    @requires()
    @gives(SecondFactorsSchema)
    @refuses((403, "user_required"))
    def get_second_factors() -> dict[str, Any]:
        """Show one's second factors. Whoever has one is asked for it at every sign-in."""
        return body_of(factors.held(current_user_id()))

    @routes.post("/me/second-factors/totp")
    @requires()
    @takes(ReauthenticationSchema)
    @gives(EnrolmentSchema, 201)
    @refuses(*REAUTHENTICATION, (409, "totp_enrolled"))
    def enrol_totp(body: dict[str, Any]) -> dict[str, Any]:
        """Begin to use an authenticator app (RFC 6238). It counts when its first code was sent, within a quarter of
        an hour."""
        me = person(people)
        demand(login, factors, me, body)
        secret = database.write(lambda tx: factors.apps.enrol(tx, me.id))
        uri = totp.uri(secret, account=me.email, issuer=issuer_name)
        return {"secret": totp.spelled(secret), "uri": uri}

    @routes.post("/me/second-factors/totp/confirm")
    @requires()
    @takes(FirstCodeSchema)
    @gives(RecoveryCodesSchema)
    @refuses((403, "user_required"), (403, "invalid_otp"), (404, "totp_not_enrolled"), (429, "too_many_requests"))
    def confirm_totp(body: dict[str, Any]) -> dict[str, Any]:
        """Send the first code of the app. With the first factor come recovery codes, shown this once."""
        return {"recovery_codes": factors.confirm_app(current_user_id(), body["otp"])}

    @routes.delete("/me/second-factors/totp")
    @requires()
    @gives(None, 204)
    @refuses((403, "user_required"), TOO_LONG_AGO, (404, "totp_not_enrolled"))
    def remove_totp() -> None:
        """Remove the authenticator app. Needs a sign-in of less than five minutes ago, with a second factor."""
        me = person(people)
        demand_recent(factors, me)
        factors.remove_app(me.id)

    @routes.post("/me/second-factors/recovery-codes")
    @requires()
    @takes(ReauthenticationSchema)
    @gives(RecoveryCodesSchema, 201)
    @refuses(*REAUTHENTICATION, (409, "no_second_factor"))
    def renew_recovery_codes(body: dict[str, Any]) -> dict[str, Any]:
        """Get new recovery codes in the place of all others, shown this once."""
        me = person(people)
        demand(login, factors, me, body)
        return {"recovery_codes": factors.renew_recovery_codes(me.id)}

    @routes.delete("/<uuid:user_id>/second-factors")
    @requires("users:write")
    @rehearsable
    @gives(None, 204)
    @refuses((403, "exceeds_own_permissions"), (404, "user_not_found"))
    def reset_second_factors(user_id: UUID, *, dry_run: bool) -> None:
        """Take away all second factors of a user who lost them; their password is enough from then on."""

        def reset(tx: Transaction) -> None:
            rights.lock(tx)
            people.get(tx, user_id, for_update=True)
            rights.require_peer(tx, rights.read_all(tx, [user_id])[user_id].permissions)
            gone = factors.reset(tx, user_id)
            if dry_run:
                lost = {"totp": gone.app_since is not None, "passkeys": len(gone.passkeys)}
                raise Rehearsed(Effect(second_factors=lost))

        database.write(reset)

    return routes


def person(people: People) -> Person:
    found = people.find(current_user_id())
    if found is None:
        raise NotFound("There is no such user.", code="user_not_found")
    return found


def body_of(held: Held) -> dict[str, Any]:
    return {
        "totp": {"confirmed_at": held.app_since} if held.app_since else None,
        "passkeys": held.passkeys,
        "recovery_codes_left": held.recovery_codes_left,
    }
