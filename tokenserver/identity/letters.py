"""The letters that are sent: who gets them, and all their texts.

A letter is written when it is sent, about the account as it is then. Who is disabled gets none.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import select

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.config import Settings
from tokenserver.identity import links
from tokenserver.identity.links import Purpose
from tokenserver.identity.models import User
from tokenserver.identity.names import folded
from tokenserver.identity.people import ACTIVE
from tokenserver.mail.message import Letter
from tokenserver.mail.models import Kind, QueuedMail
from tokenserver.storage.sql import Transaction
from tokenserver.web.language import SOURCE, marked, spoken, translated
from tokenserver.web.request_context import current

# `{link}`, `{at}`, `{username}`, `{issuer}`, `{help}`, and what stands in `QueuedMail.data`. Nothing of it is free
# text: mail of this server must not carry anybody's words to others.
TEXTS: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.EMAIL_VERIFICATION: (
        marked("Confirm your e-mail address"),
        marked("""The account "{username}" at {issuer} has this e-mail address.

If the account is yours, open this page within a day and confirm it:

{link}

If it is not, do nothing.
"""),
    ),
    Kind.PASSWORD_RESET: (
        marked("Set a new password"),
        marked("""A new password was asked for, for the account "{username}" at {issuer}.

To set one, open this page within 30 minutes. It works once.

{link}

If it was not you who asked, do nothing: your password stays as it is.
"""),
    ),
    Kind.EMAIL_CHANGED: (
        marked("Your e-mail address was changed"),
        marked("""The account "{username}" at {issuer} has another e-mail address since {at}.
This one gets no more mail about it.

{help}
"""),
    ),
    Kind.NEW_DEVICE: (
        marked("New sign-in to your account"),
        marked("""Somebody signed in to the account "{username}" at {issuer}, from where nobody did before:

when: {at}
with: {device}
from: {address}

If it was you, all is well. {help}
"""),
    ),
    Kind.PASSWORD_CHANGED: (
        marked("Your password was changed"),
        marked("""The password of the account "{username}" at {issuer} was changed at {at}.

{help}
"""),
    ),
    Kind.SECOND_FACTOR_ADDED: (
        marked("A second factor was added"),
        marked("""Signing in to the account "{username}" at {issuer} takes {factor} too, since {at}.

{help}
"""),
    ),
    Kind.SECOND_FACTOR_REMOVED: (
        marked("A second factor was removed"),
        marked("""Signing in to the account "{username}" at {issuer} no longer takes {factor}, since {at}.

{help}
"""),
    ),
}
HELP: Final = marked(
    "If it was not you, set a new password at {issuer}/forgot-password and tell who runs this service."
)
UNKNOWN: Final = marked("unknown")
# Whoever had the account's address changed has it now; the old one can't be used to get it back.
LOST: Final = marked("If it was not you, tell who runs this service at once.")


class Letters:
    def __init__(self, settings: Settings) -> None:
        self._issuer = settings.issuer
        self._links: Mapping[Kind, Callable[[Transaction, User, QueuedMail], str | None]] = {
            Kind.EMAIL_VERIFICATION: self._verification,
            Kind.PASSWORD_RESET: self._reset,
        }

    def write(self, tx: Transaction, mail: QueuedMail) -> Letter | None:
        """None when there is nobody to get it: no such user, disabled, or nothing left to confirm."""
        kind = Kind(mail.kind)
        user = tx.get(User, mail.user_id) if mail.user_id else _by_address(tx, mail.recipient)
        if user is None or user.status != ACTIVE:
            return None
        link = None
        if kind in self._links:
            link = self._links[kind](tx, user, mail)
            if link is None:
                return None
        # What the account says of its user, before what the request asked for that the letter comes of.
        language = spoken((user.claims or {}).get("locale")) or spoken(mail.data.get("language")) or SOURCE
        subject, text = (translated(each, language) for each in TEXTS[kind])
        words: dict[str, Any] = {
            "link": link,
            "at": f"{mail.created_at:%Y-%m-%d %H:%M} UTC",
            "username": user.username,
            "issuer": self._issuer,
            "help": translated(LOST if kind is Kind.EMAIL_CHANGED else HELP, language).format(issuer=self._issuer),
        }
        known = {name: translated(value or UNKNOWN, language) for name, value in mail.data.items()}
        # What somebody typed found the account; the address is the account's own.
        recipient = mail.recipient if mail.user_id else user.email
        return Letter(recipient, subject, text.format(**words | known), link)

    def _verification(self, tx: Transaction, user: User, mail: QueuedMail) -> str | None:
        if user.email_verified or (mail.user_id and user.email != mail.recipient):
            return None
        return self._link("/verify-email", links.mint(tx, user, Purpose.EMAIL))

    def _reset(self, tx: Transaction, user: User, mail: QueuedMail) -> str:
        if mail.attempts == 1:
            # Only here it is known that there is such a user; the request was the one that asked.
            context = current()
            context.address, context.request_id = mail.data.get("address"), mail.data.get("request_id")
            record(tx, Event.PASSWORD_RESET_REQUESTED, target=user.id)
            context.address = context.request_id = None
        return self._link("/reset-password", links.mint(tx, user, Purpose.PASSWORD))

    def _link(self, path: str, token: str) -> str:
        return f"{self._issuer}{path}?{urlencode({'token': token})}"


def _by_address(tx: Transaction, address: str) -> User | None:
    return tx.scalar(select(User).where(User.email_key == folded(address)))
