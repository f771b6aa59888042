"""Changing one's own account: one rule for `PUT /users/me` and for the pages below `/account`."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from tokenserver.errors import Forbidden, Invalid
from tokenserver.identity import claim_values
from tokenserver.identity.login import Login, Proof, Refusal
from tokenserver.identity.models import User
from tokenserver.identity.names import folded
from tokenserver.identity.passwords import Passwords
from tokenserver.identity.people import People, Person, name_faults
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.sessions import EndReason, Sessions

# After the password, of who has a second factor: raises Forbidden for a code that is missing or wrong.
DemandSecond = Callable[[Proof, str | None], None]


class OwnAccount:
    def __init__(self, feed: Feed, people: People, passwords: Passwords, login: Login, sessions: Sessions) -> None:
        self._feed = feed
        self._people = people
        self._passwords = passwords
        self._login = login
        self._sessions = sessions

    def change(
        self, person: Person, session_id: UUID | None, fields: dict[str, Any], demand_second: DemandSecond
    ) -> Person:
        """As they are then. `fields`: as `ProfileSchema` loads them. `session_id`: whose request it is; a new
        password ends the person's other sessions.

        Raises Invalid, Forbidden `reauthentication_required` or `invalid_credentials`, what `demand_second` raises,
        Conflict `username_taken` or `email_taken`, TooManyRequests, Unavailable.
        """
        fields = dict(fields)
        new_password = fields.pop("password", None)
        current_password, otp = fields.pop("current_password", None), fields.pop("otp", None)
        changes = {key: value for key, value in fields.items() if _differs(person, key, value)}
        self._check(person, changes, new_password)
        proof = None
        if new_password is not None or changes.keys() & {"username", "email"}:
            # OWASP ASVS 6.2.3 and 7.5.1: who holds the token or the cookie must also know the password
            if current_password is None:
                raise Forbidden("Send current_password too.", code="reauthentication_required")
            proof = self._prove(person, current_password, session_id)
            demand_second(proof, otp)
        if new_password is not None:
            changes["password_hash"] = self._passwords.hash(new_password)
        if not changes:
            return person

        def update(tx: Transaction, change: Change) -> User:
            if proof is not None and not proof.holds(tx):
                raise Forbidden("The current password is wrong.", code="invalid_credentials")
            user = self._people.update(tx, change, person.id, changes)
            if new_password is not None:
                reason = EndReason.PASSWORD_CHANGED
                self._sessions.end(tx, change, user_id=person.id, keep=session_id, reason=reason)
            return user

        return Person.of(self._feed.change(update))

    def _prove(self, person: Person, password: str, session_id: UUID | None) -> Proof:
        proof = self._login.authenticate(person.username, password, session_id=session_id)
        if isinstance(proof, Refusal):
            raise Forbidden("The current password is wrong.", code="invalid_credentials")
        return proof

    def _check(self, person: Person, changes: dict[str, Any], new_password: str | None) -> None:
        errors = name_faults(changes.get("username"), changes.get("email"))
        errors += claim_values.faults({name: changes[name] for name in changes if name in claim_values.KEPT})
        if new_password is not None:
            names = (changes.get("username", person.username), changes.get("email", person.email))
            errors += self._passwords.faults(new_password, *names)
        if errors:
            raise Invalid(errors)


def _differs(person: Person, key: str, value: Any) -> bool:
    known = person.claims.get(key) if key in claim_values.KEPT else getattr(person, key)
    return (folded(value or "") if key == "username" else value) != known
