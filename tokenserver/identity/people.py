"""The people: found, registered, changed, disabled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, bindparam, or_, select
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import Conflict, FieldError, Invalid, NotFound
from tokenserver.identity import claim_values
from tokenserver.identity.models import User
from tokenserver.identity.names import displayed, folded, is_email, is_username
from tokenserver.identity.notices import Notices
from tokenserver.identity.passwords import Passwords
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Change, Entry, Feed, Kind
from tokenserver.storage.sql import Base, Transaction, new_id, utc_now
from tokenserver.tokens.sessions import EndReason, Sessions

CACHED_USERS: Final = 10_000
ACTIVE: Final = "active"
DISABLED: Final = "disabled"


@dataclass(frozen=True, slots=True)
class Person:
    """A user as of the last `Feed.sync`, without the password. `claims`: `User.claims`."""

    id: UUID
    username: str
    email: str
    name: str | None
    status: str
    created_at: datetime
    updated_at: datetime
    claims: Mapping[str, Any]
    email_verified: bool
    phone_number_verified: bool

    @property
    def is_active(self) -> bool:
        return self.status == ACTIVE

    @classmethod
    def of(cls, row: User | Row[Any]) -> "Person":
        return cls(
            id=row.id,
            username=row.username,
            email=row.email,
            name=row.name,
            status=row.status,
            created_at=row.created_at,
            updated_at=row.updated_at,
            claims=MappingProxyType(row.claims or {}),
            email_verified=bool(row.email_verified),
            phone_number_verified=bool(row.phone_number_verified),
        )


USERS: Final = Base.metadata.tables[User.__tablename__]
# By the ORM, and composed anew each time, it would take three times as long. It is what a refresh costs where its
# user isn't known yet.
BY_ID: Final = select(*(USERS.c[field.name] for field in fields(Person))).where(USERS.c.id == bindparam("user_id"))


class People:
    def __init__(self, feed: Feed, passwords: Passwords, notices: Notices) -> None:
        self._feed = feed
        self._passwords = passwords
        self._notices = notices
        self._people: Cache[UUID, Person] = Cache(CACHED_USERS)
        feed.subscribe(self._apply, lambda _entries: self._people.clear())

    def _apply(self, entry: Entry) -> None:
        if entry.kind is Kind.USER_CHANGED:
            self._people.drop(UUID(entry.subject))

    def find(self, user_id: UUID) -> Person | None:
        person = self._people.get(user_id)
        if person is None:
            ticket = self._people.ticket()
            found = {"user_id": user_id}
            row = self._feed.database.read(lambda tx: tx.connection().execute(BY_ID, found).one_or_none())
            if row is not None:
                person = Person.of(row)
                self._people.put(user_id, person, ticket)
        return person

    def find_by_login(self, login: str) -> User | None:
        """By user name or e-mail address. A user name holds no @, so the two can't be confused."""
        key = folded(login)
        if is_username(key):
            query = select(User).where(User.username_key == key)
        elif is_email(key):
            query = select(User).where(User.email_key == key)
        else:
            return None
        return self._feed.database.read(lambda tx: tx.scalar(query))

    def find_any(self, user: str) -> User | None:
        """By user name, e-mail address or id."""
        found = self.find_by_login(user)
        if found is not None:
            return found
        try:
            user_id = UUID(user)
        except ValueError:
            return None
        return self._feed.database.read(lambda tx: tx.get(User, user_id))

    @staticmethod
    def get(tx: Transaction, user_id: UUID, *, for_update: bool = False) -> User:
        user = tx.get(User, user_id, with_for_update=for_update)
        if user is None:
            raise NotFound("There is no such user.", code="user_not_found")
        return user

    @staticmethod
    def search(
        tx: Transaction, *, text: str = "", status: str | None = None, limit: int, after: str | None = None
    ) -> Sequence[User]:
        """By user name. `text`: a part of the user name, the e-mail address or the name, spelled in any way.
        `after`: the last user name of the page before."""
        query = select(User).order_by(User.username_key).limit(limit)
        key = folded(text)
        if key:
            names = (User.username_key, User.email_key, User.name_key)
            query = query.where(or_(*(name.contains(key, autoescape=True) for name in names)))
        if status is not None:
            query = query.where(User.status == status)
        if after is not None:
            query = query.where(User.username_key > after)
        return tx.scalars(query).all()

    def list(self) -> Sequence[User]:
        query = select(User).order_by(User.created_at, User.id)
        return self._feed.database.read(lambda tx: tx.scalars(query).all())

    # Changing

    def prepare(
        self,
        *,
        username: str,
        email: str,
        password: str,
        name: str | None = None,
        claims: Mapping[str, Any] = MappingProxyType({}),
        email_verified: bool = False,
        by_operator: bool = False,
    ) -> User:
        """A checked, hashed, unsaved user; slow, so outside any transaction. Raises Invalid, Unavailable.

        `by_operator`: the password comes from the configuration or the command line and may hold the name.
        """
        errors = name_faults(username, email) + claim_values.faults(claims)
        errors += self._passwords.faults(password, *(() if by_operator else (username, email)))
        if errors:
            raise Invalid(errors)
        now = utc_now()
        return User(
            id=new_id(),
            username=folded(username),
            username_key=folded(username),
            email=displayed(email),
            email_key=folded(email),
            name=name,
            name_key=folded(name) if name else None,
            password_hash=self._passwords.hash(password),
            status=ACTIVE,
            claims=_kept(claims),
            email_verified=email_verified,
            created_at=now,
            updated_at=now,
        )

    def add(self, tx: Transaction, user: User) -> None:
        """Raises Conflict `username_taken` or `email_taken`."""
        self._refuse_taken(tx, user)
        tx.add(user)
        self._flush(tx)
        record(tx, Event.USER_CREATED, target=user.id, username=user.username)

    def update(self, tx: Transaction, change: Change, user_id: UUID, changes: Mapping[str, Any]) -> User:
        """`changes`: any of name, username, email, password_hash and `claim_values.KEPT`, checked; None where that
        is to be forgotten. An address or number that is new is not verified. The user is told by mail of a new
        address or password. Raises Conflict, NotFound."""
        user = self.get(tx, user_id, for_update=True)
        old_email = user.email
        if changes.get("username"):
            user.username = user.username_key = folded(str(changes["username"]))
        if changes.get("email"):
            email = displayed(str(changes["email"]))
            user.email_verified = user.email == email and user.email_verified
            user.email, user.email_key = email, folded(email)
        if "name" in changes:
            user.name = changes["name"]
            user.name_key = folded(user.name) if user.name else None
        claims = _kept((user.claims or {}) | {name: changes[name] for name in changes if name in claim_values.KEPT})
        if "phone_number" in changes and _phone_number(claims) != _phone_number(user.claims):
            user.phone_number_verified = False
        user.claims = claims
        self._refuse_taken(tx, user)
        if changes.get("password_hash"):
            user.password_hash = str(changes["password_hash"])
            record(tx, Event.USER_PASSWORD_CHANGED, target=user_id)
            self._notices.password_changed(tx, user)
        if user.email != old_email:
            self._notices.email_changed(tx, user, old_email)
        if changes.keys() - {"password_hash"}:
            record(tx, Event.USER_UPDATED, target=user_id, fields=sorted(changes.keys() - {"password_hash"}))
        user.updated_at = utc_now()
        self._flush(tx)
        change.note(Kind.USER_CHANGED, user_id)
        return user

    def set_status(self, tx: Transaction, change: Change, user_id: UUID, status: str, sessions: Sessions) -> User:
        """With all that was issued to who is disabled, and every session. Raises NotFound."""
        user = self.get(tx, user_id, for_update=True)
        if user.status != status:
            user.status, user.updated_at = status, utc_now()
            record(tx, Event.USER_ENABLED if status == ACTIVE else Event.USER_DISABLED, target=user_id)
            change.note(Kind.USER_CHANGED, user_id)
            if status == DISABLED:
                sessions.end_user(tx, change, user_id, EndReason.USER_DISABLED)
        return user

    @staticmethod
    def _refuse_taken(tx: Transaction, user: User) -> None:
        with tx.no_autoflush:
            others = tx.execute(
                select(User.username_key, User.email_key).where(
                    User.id != user.id,
                    (User.username_key == user.username_key) | (User.email_key == user.email_key),
                )
            ).all()
        if any(username == user.username_key for username, _ in others):
            raise Conflict("This user name is taken.", code="username_taken")
        if others:
            raise Conflict("This e-mail address is taken.", code="email_taken")

    @staticmethod
    def _flush(tx: Transaction) -> None:
        try:
            tx.flush()
        except IntegrityError as error:
            # Somebody else took the name between the look and the write; the unique index decides.
            if "email_key" in str(error.orig):
                raise Conflict("This e-mail address is taken.", code="email_taken") from None
            raise Conflict("This user name is taken.", code="username_taken") from None


def _kept(claims: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in claims.items() if value is not None} or None


def _phone_number(claims: Mapping[str, Any] | None) -> object:
    return (claims or {}).get("phone_number")


def name_faults(username: str | None, email: str | None) -> list[FieldError]:
    errors = []
    if username is not None and not is_username(folded(username)):
        errors.append(
            FieldError("username", "Use 2 to 32 of a-z, 0-9, '.', '_', '-', starting with a letter or digit.")
        )
    if email is not None and not is_email(folded(email)):
        errors.append(FieldError("email", "This is not an e-mail address."))
    return errors
