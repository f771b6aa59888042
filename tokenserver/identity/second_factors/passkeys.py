"""Passkeys (WebAuthn): registered, and used beside the password or in its place."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.audit.trail import Trail
from tokenserver.errors import Conflict, Forbidden, NotFound
from tokenserver.identity.login import Proof, Refusal
from tokenserver.identity.models import User
from tokenserver.identity.notices import Notices
from tokenserver.identity.people import ACTIVE, People, Person
from tokenserver.identity.second_factors import recovery_codes
from tokenserver.identity.second_factors.challenges import Challenges
from tokenserver.identity.second_factors.factors import has_any, removed
from tokenserver.identity.second_factors.models import Passkey
from tokenserver.identity.second_factors.relying_party import Answered, Known, NotAccepted, RelyingParty
from tokenserver.storage.sql import Database, Transaction, new_id, utc_now
from tokenserver.web.language import marked
from tokenserver.web.request_context import current

logger = logging.getLogger("tokenserver")
PASSKEY: Final = marked("a passkey")  # in the words of a mail
MAX_PASSKEYS: Final = 20
# RFC 8176 section 2: a key was proven, and somebody was there. Alone, the authenticator has verified who it was, by
# a PIN or a finger, which makes two factors.
ALONE: Final = ("pop", "user", "mfa")
WITH_PASSWORD: Final = ("pwd", "pop", "user", "mfa")


@dataclass(frozen=True, slots=True)
class Added:
    """`recovery_codes`: shown this once; none where there are some already."""

    passkey: Passkey
    recovery_codes: list[str]


class Passkeys:
    """`place`, everywhere: the browser or session in which a challenge is issued and answered."""

    def __init__(
        self, database: Database, party: RelyingParty, challenges: Challenges, trail: Trail, notices: Notices
    ) -> None:
        self._database = database
        self._trail = trail
        self._notices = notices
        self._challenges = challenges
        self.party = party

    # Registering

    def creation_options(self, person: Person, place: str) -> dict[str, Any]:
        """For navigator.credentials.create. Raises Conflict `passkeys_unavailable`, `too_many_passkeys`."""
        if not self.party.is_possible:
            raise Conflict("Passkeys need a server with a domain name and https.", code="passkeys_unavailable")
        known = self._known(person.id)
        if len(known) >= MAX_PASSKEYS:
            raise Conflict("There are too many passkeys. Remove one first.", code="too_many_passkeys")
        challenge = self._challenges.issue(_registering(person.id, place))
        return self.party.creation(challenge, person.id.bytes, person.username, known)

    def register(self, user_id: UUID, name: str, credential: dict[str, Any], place: str) -> Added:
        """Raises Forbidden `invalid_passkey`, Conflict `passkey_exists`, `too_many_passkeys`."""
        try:
            answered = self.party.read(credential)
            if not self._challenges.is_ours(answered.challenge, _registering(user_id, place)):
                raise NotAccepted("another challenge")
            verified = self.party.registered(credential, answered.challenge)
        except NotAccepted as error:
            raise _invalid(str(error)) from None
        passkey = Passkey(
            id=new_id(),
            user_id=user_id,
            credential_id=verified.credential_id,
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            transports=self.party.transports(credential),
            name=name,
            is_backed_up=verified.credential_backed_up,
            created_at=utc_now(),
        )

        def add(tx: Transaction) -> list[str]:
            user = People.get(tx, user_id, for_update=True)  # one after another: who is first?
            if not self._challenges.spend(tx, answered.challenge):
                raise _invalid("a challenge for the second time")
            count = select(func.count()).select_from(Passkey).where(Passkey.user_id == user_id)
            if (tx.scalar(count) or 0) >= MAX_PASSKEYS:
                raise Conflict("There are too many passkeys. Remove one first.", code="too_many_passkeys")
            is_first = not has_any(tx, user_id)
            tx.add(passkey)
            tx.flush()
            record(tx, Event.SECOND_FACTOR_ADDED, target=user_id, kind="passkey", passkey=str(passkey.id))
            self._notices.second_factor_added(tx, user, PASSKEY)
            return recovery_codes.issue(tx, user_id) if is_first else []

        try:
            return Added(passkey, self._database.write(add))
        except IntegrityError:
            raise Conflict("This passkey is registered already.", code="passkey_exists") from None

    def rename(self, user_id: UUID, passkey_id: UUID, name: str) -> Passkey:
        """Raises NotFound `passkey_not_found`."""

        def rename(tx: Transaction) -> Passkey:
            row = _own(tx, user_id, passkey_id)
            row.name = name
            return row

        return self._database.write(rename)

    def remove(self, user_id: UUID, passkey_id: UUID) -> None:
        """Raises NotFound `passkey_not_found`."""

        def remove(tx: Transaction) -> None:
            user = People.get(tx, user_id, for_update=True)
            tx.delete(_own(tx, user_id, passkey_id))
            tx.flush()
            removed(tx, user_id, "passkey")
            self._notices.second_factor_removed(tx, user, PASSKEY)

        self._database.write(remove)

    # Signing in

    def request_options(self, place: str, user_id: UUID | None = None) -> dict[str, Any] | None:
        """For navigator.credentials.get; None where there is nothing to choose from. `user_id`: who has given the
        password."""
        known = self._known(user_id) if user_id else []
        if not self.party.is_possible or (user_id is not None and not known):
            return None
        return self.party.request(self._challenges.issue(_signing_in(user_id, place)), known)

    def prove(self, credential: object, place: str, known: Proof | None = None) -> Proof | Refusal:
        """Who holds the passkey that answered. `known`: who has given the password."""
        expected = known.user.id if known else None
        passkey = None
        try:
            answered = self.party.read(credential)
            passkey = self._database.read(lambda tx: _find(tx, answered.credential_id))
            self._check(answered, passkey, place, expected)
            assert passkey is not None  # noqa: S101 - for the type checker
            verified = self.party.authenticated(
                cast("dict[str, Any]", credential),
                answered.challenge,
                passkey.public_key,
                must_verify_user=known is None,
            )
            if not self._use(passkey.id, answered.challenge, verified.new_sign_count):
                raise NotAccepted("answered before, or copied")
        except NotAccepted as error:
            logger.info("a passkey was not accepted: %a", str(error))
            return self._refused(Refusal.INVALID_PASSKEY, passkey.user_id if passkey else expected)
        if known:
            return replace(known, amr=WITH_PASSWORD)
        user_id = passkey.user_id
        user = self._database.read(lambda tx: tx.get(User, user_id))
        if user is None or user.status != ACTIVE:
            return self._refused(Refusal.ACCOUNT_DISABLED, user_id)
        return Proof(user, ALONE)

    def _check(self, answered: Answered, passkey: Passkey | None, place: str, expected: UUID | None) -> None:
        """WebAuthn Level 3 section 7.2 step 6: whose credential it is."""
        if passkey is None or (expected is not None and passkey.user_id != expected):
            raise NotAccepted("unknown, or somebody else's")
        handle = answered.user_handle
        if (handle is None and expected is None) or handle not in {None, passkey.user_id.bytes}:
            raise NotAccepted("another user handle")
        if not self._challenges.is_ours(answered.challenge, _signing_in(expected, place)):
            raise NotAccepted("another challenge")

    def _use(self, passkey_id: UUID, challenge: bytes, sign_count: int) -> bool:
        """False for an answer that was used before, and for a count that didn't rise (section 6.1.1): there are two
        authenticators with one key. Committed before the sign-in, so that it is recorded."""

        def use(tx: Transaction) -> bool:
            if not self._challenges.spend(tx, challenge):
                return False
            rises = Passkey.sign_count < sign_count if sign_count else Passkey.sign_count == 0
            used = update(Passkey).where(Passkey.id == passkey_id, rises)
            result = tx.execute(used.values(sign_count=sign_count, used_at=utc_now()))
            if cast("CursorResult[Any]", result).rowcount == 1:
                return True
            if tx.get(Passkey, passkey_id) is not None:
                record(tx, Event.PASSKEY_COPIED, target=passkey_id, outcome="denied", sign_count=sign_count)
            return False

        return self._database.write(use)

    def _refused(self, refusal: Refusal, user_id: UUID | None) -> Refusal:
        event = self._trail.describe(Event.LOGIN_FAILED, outcome="denied", reason=refusal.value, target=user_id)
        current().events.append(event)
        return refusal

    def _known(self, user_id: UUID) -> list[Known]:
        query = select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.created_at)
        rows = self._database.read(lambda tx: tx.scalars(query).all())
        return [Known(row.credential_id, row.transports) for row in rows]


def _registering(user_id: UUID, place: str) -> str:
    return f"register {user_id} {place}"


def _signing_in(user_id: UUID | None, place: str) -> str:
    return f"sign in {user_id} {place}"


def _find(tx: Transaction, credential_id: bytes) -> Passkey | None:
    return tx.scalar(select(Passkey).where(Passkey.credential_id == credential_id))


def _own(tx: Transaction, user_id: UUID, passkey_id: UUID) -> Passkey:
    row = tx.get(Passkey, passkey_id)
    if row is None or row.user_id != user_id:
        raise NotFound("There is no such passkey.", code="passkey_not_found")
    return row


def _invalid(private: str) -> Forbidden:
    logger.info("a passkey was not registered: %a", private)
    return Forbidden("The passkey was not accepted.", code=Refusal.INVALID_PASSKEY.value)
