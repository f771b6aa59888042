"""Before a second factor, a name or the password is changed: who holds the token must be its user (OWASP ASVS
7.5.1).
"""

import time
from contextlib import suppress
from typing import Any, Final

from tokenserver.errors import Forbidden
from tokenserver.identity.login import Login, Proof, Refusal
from tokenserver.identity.people import Person
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.tokens.access_token import TWO_FACTORS
from tokenserver.verify.authentication import Authentication
from tokenserver.verify.errors import InsufficientUserAuthentication
from tokenserver.verify.flask import current_claims
from tokenserver.web.holder import current_holder

# A sign-in of so many seconds ago is enough.
RECENT_SECONDS: Final = 300
SENTENCES: Final = {
    Refusal.SECOND_FACTOR_REQUIRED: "Send otp too: a code of the authenticator app, or a recovery code.",
    Refusal.INVALID_OTP: "The code is wrong.",
}


def demand_recent(factors: SecondFactors, person: Person) -> None:
    """By the token alone. Raises InsufficientUserAuthentication, which says what is missing (RFC 9470)."""
    acr_values = (TWO_FACTORS,) if factors.has_any(person.id) else ()
    Authentication(acr_values, RECENT_SECONDS).check(current_claims(), now=time.time())


def demand(login: Login, factors: SecondFactors, person: Person, body: dict[str, Any]) -> None:
    """By `current_password` and, where there is a second factor, `otp`; without them like `demand_recent`.

    Raises Forbidden `invalid_credentials`, `second_factor_required`, `invalid_otp`, too.
    """
    if "current_password" not in body:
        demand_recent(factors, person)
        return
    session_id = current_holder().session_id
    proof = login.authenticate(person.username, body["current_password"], session_id=session_id)
    if isinstance(proof, Refusal):
        raise Forbidden("The current password is wrong.", code="invalid_credentials")
    demand_second(factors, proof, body.get("otp"))


def demand_second(factors: SecondFactors, proof: Proof, otp: str | None) -> None:
    """After the password, of who has a second factor: `otp`, or a token from a recent sign-in that proved one.

    Raises Forbidden `second_factor_required`, `invalid_otp`, TooManyRequests.
    """
    if otp is None:
        with suppress(InsufficientUserAuthentication):
            Authentication((TWO_FACTORS,), RECENT_SECONDS).check(current_claims(), now=time.time())
            return
    completed = factors.complete(proof, otp)
    if isinstance(completed, Refusal):
        raise Forbidden(SENTENCES[completed], code=completed.value)
