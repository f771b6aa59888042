"""Who sent a form of their account, and the page that they get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from flask import Response

from tokenserver.errors import Forbidden
from tokenserver.identity.login import Proof, Refusal
from tokenserver.identity.people import Person
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.identity.second_factors.reauthentication import RECENT_SECONDS, SENTENCES
from tokenserver.oauth.browser_session import SignedIn
from tokenserver.pages.refused import Shown
from tokenserver.pages.rendering import render
from tokenserver.storage.sql import utc_now
from tokenserver.tokens.access_token import TWO_FACTORS, acr_of

Fields = Mapping[str, str]
NO_FIELDS: Final[Fields] = {}


@dataclass(frozen=True, slots=True)
class Asked:
    """Who sent the form, in which browser. `csrf`: for the next one. `done`: what was done just now, by a word of
    the address, which decides nothing but what is said of it."""

    person: Person
    signed_in: SignedIn
    browser: str
    csrf: str
    done: str = ""

    @property
    def place(self) -> str:
        return f"browser {self.browser} {self.signed_in.session_id}"


# A page again; or None: it was done, and the page is shown by its address.
Action = Callable[[Asked, Fields], Response | None]


class AccountPage(Protocol):
    """One page below `/account`. `actions`: by the field `action` of its forms. `needs_recent_sign_in`: for all."""

    path: str
    needs_recent_sign_in: bool
    actions: Mapping[str, Action]

    def show(self, asked: Asked) -> Response: ...


class Recency:
    """Whether somebody signed in a few minutes ago, with all that they have (OWASP ASVS 7.5.1)."""

    def __init__(self, factors: SecondFactors) -> None:
        self._factors = factors

    def is_recent(self, asked: Asked) -> bool:
        """Else nothing is changed: first they sign in again."""
        return _is_lately(asked) and self.lacks_second_factor(asked) is None

    def lacks_second_factor(self, asked: Asked) -> str | None:
        """The session of who signed in lately, but by the password alone."""
        if not _is_lately(asked) or acr_of(asked.signed_in.amr) == TWO_FACTORS:
            return None
        return str(asked.signed_in.session_id) if self._factors.has_any(asked.person.id) else None

    def asks_code(self, asked: Asked) -> bool:
        """Whether `demand_second` will want one."""
        return self._factors.has_any(asked.person.id) and not self.is_recent(asked)

    def demand_second(self, asked: Asked, proof: Proof, otp: str | None) -> None:
        """Raises Forbidden `second_factor_required`, `invalid_otp`, TooManyRequests."""
        if not self.is_recent(asked):
            completed = self._factors.complete(proof, otp)
            if isinstance(completed, Refusal):
                raise Forbidden(SENTENCES[completed], code=completed.value)


def _is_lately(asked: Asked) -> bool:
    return utc_now() - asked.signed_in.authenticated_at < timedelta(seconds=RECENT_SECONDS)


def page(
    template: str, asked: Asked, refusal: Shown | None = None, *, has_assets: bool = False, **values: Any
) -> Response:
    return render(
        template,
        refusal.status if refusal else 200,
        forms=("'self'",),
        has_assets=has_assets,
        refusal=refusal,
        username=asked.person.username,
        csrf=asked.csrf,
        done=asked.done,
        **values,
    )
