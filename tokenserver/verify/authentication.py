"""How, and how lately, the user of a token must have signed in (RFC 9470)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import SCOPE_TOKEN, InsufficientUserAuthentication


@dataclass(frozen=True, slots=True)
class Authentication:
    """`acr_values`: authentication contexts of which one will do; none: any. `max_age`: seconds since the user
    proved actively who they are."""

    acr_values: tuple[str, ...] = ()
    max_age: int | None = None

    @classmethod
    def of(cls, acr_values: Sequence[str], max_age: int | None) -> Self:
        """ValueError for what no challenge can hold: a slip shows when the service starts."""
        if isinstance(acr_values, str) or not all(SCOPE_TOKEN.fullmatch(value) for value in acr_values):
            raise ValueError("acr_values must be a sequence of words without spaces")
        if max_age is not None and max_age < 0:
            raise ValueError("max_age must not be negative")
        return cls(tuple(acr_values), max_age)

    def check(self, claims: Claims, *, now: float, leeway: float = 0) -> None:
        """Raises InsufficientUserAuthentication, which tells all that is wanted (RFC 9470 section 3)."""
        if self.acr_values and claims.acr not in self.acr_values:
            raise InsufficientUserAuthentication(self.acr_values, self.max_age, "another acr")
        if self.max_age is None:
            return
        # Section 3: a token that doesn't tell when its user signed in can't satisfy it.
        if claims.auth_time is None or now - claims.auth_time > self.max_age + leeway:
            raise InsufficientUserAuthentication(self.acr_values, self.max_age, "too long ago")


ANY: Final = Authentication()
