"""Whether a sign-in reaches the authentication context that is asked for (OIDC Core sections 3.1.2.1 and 5.5.1.1,
RFC 9470 section 5). The contexts are levels: a higher one is as good as each below it.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto

from tokenserver.oauth.authorization_request import AuthorizationRequest
from tokenserver.tokens.access_token import ACR_VALUES, acr_of


class Reach(Enum):
    ENOUGH = auto()
    STEP_UP = auto()  # by the second factor that the user has
    UNMET = auto()


def reach(request: AuthorizationRequest, amr: Sequence[str], has_second_factor: Callable[[], bool]) -> Reach:
    """`has_second_factor`: only asked where it matters."""
    # Section 5.5.1.1: the claims parameter may make it essential; acr_values never does.
    wanted = request.claims.acr_values or request.acr_values
    is_essential = request.claims.acr_essential and bool(request.claims.acr_values)
    known = [ACR_VALUES.index(value) for value in wanted if value in ACR_VALUES]
    # In order of preference, so the first one is what to try; of essential ones any will do.
    needed = min(known) if is_essential and known else next(iter(known), 0)
    if (known or not is_essential) and ACR_VALUES.index(acr_of(amr)) >= needed:
        return Reach.ENOUGH
    if known and has_second_factor():
        return Reach.STEP_UP
    return Reach.UNMET if is_essential else Reach.ENOUGH
