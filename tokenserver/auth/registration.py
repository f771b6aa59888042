"""Registering: one rule for `POST /auth/register` and for the page `/register`."""

from typing import Any

from tokenserver.access.permissions import USER
from tokenserver.access.rights import Held, Rights
from tokenserver.config import Settings
from tokenserver.errors import Forbidden, Unavailable
from tokenserver.identity.notices import Notices
from tokenserver.identity.people import People, Person
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.sql import Transaction
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current


class Registration:
    """`is_open`: whether anybody may."""

    def __init__(
        self, settings: Settings, feed: Feed, people: People, rights: Rights, limits: RateLimits, notices: Notices
    ) -> None:
        self.is_open = settings.registration == "open"
        self._feed = feed
        self._people = people
        self._rights = rights
        self._limits = limits
        self._notices = notices
        self._counted = Limit.of("register", settings.limit_register)

    def register(self, fields: dict[str, Any]) -> tuple[Person, Held]:
        """A user with the role `user`, who is mailed a link to confirm the address. `fields`: as
        `RegistrationSchema` loads them.

        Raises Forbidden `registration_closed`, TooManyRequests, Invalid, Unavailable, Conflict `username_taken` or
        `email_taken`.
        """
        if not self.is_open:
            raise Forbidden("Registration is closed.", code="registration_closed")
        self._feed.sync()
        counted = (self._counted, network_of(current().address))
        self._limits.take(counted)
        try:
            user = self._people.prepare(**fields)
        except Unavailable:
            self._limits.give_back(counted)  # nothing was done
            raise

        def add(tx: Transaction, change: Change) -> Held:
            self._people.add(tx, user)
            self._notices.ask_to_verify(tx, user)
            self._rights.assign(tx, change, user.id, USER, granted_by="registration")
            tx.flush()
            return self._rights.read(tx, user.id)

        held = self._feed.change(add)
        return Person.of(user), held
