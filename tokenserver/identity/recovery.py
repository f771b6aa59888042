"""Into one's account by its e-mail address: a forgotten password, and the proof that an address is one's own.

Asking does the same for every address, known or not, and at the same speed: it leaves a letter, and who writes the
letter finds out whether there is anybody to get it (OWASP ASVS 6.3.8).
"""

from typing import Final

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.errors import FieldError, Forbidden, Invalid, NotFound
from tokenserver.identity import links
from tokenserver.identity.links import Purpose
from tokenserver.identity.login import Login
from tokenserver.identity.models import User
from tokenserver.identity.names import folded, is_email
from tokenserver.identity.passwords import Passwords
from tokenserver.identity.people import People
from tokenserver.mail.models import Kind
from tokenserver.mail.postbox import Postbox
from tokenserver.storage.feed import Change, Feed
from tokenserver.storage.feed import Kind as Cutoff
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.sessions import EndReason, Sessions
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

# From one network. How many mails one address gets is limited where they are sent.
ASKED: Final = Limit("mail-asked", burst=10, interval_ms=30_000)
TRIED: Final = Limit("mail-link", burst=30, interval_ms=2_000)


class Recovery:
    def __init__(
        self,
        *,
        feed: Feed,
        people: People,
        passwords: Passwords,
        sessions: Sessions,
        postbox: Postbox,
        limits: RateLimits,
        login: Login,
    ) -> None:
        self._feed = feed
        self._people = people
        self._passwords = passwords
        self._sessions = sessions
        self._postbox = postbox
        self._limits = limits
        self._login = login

    @property
    def is_open(self) -> bool:
        """Whether this server sends mail."""
        return self._postbox.is_open

    def ask(self, kind: Kind, email: str) -> None:
        """Mail a link to the account with this address, if there is one; nobody learns whether.

        Raises Invalid for what is no address, TooManyRequests, Forbidden `mail_not_configured`.
        """
        if not self.is_open:
            raise Forbidden("This server sends no mail.", code="mail_not_configured")
        self._limits.take((ASKED, network_of(current().address)))
        if not is_email(folded(email)):
            raise Invalid([FieldError("email", "This is not an e-mail address.")])
        context = current()
        address, request_id = context.address, context.request_id
        self._feed.database.write(
            lambda tx: self._postbox.post(tx, kind, folded(email), address=address, request_id=request_id)
        )

    def find(self, purpose: Purpose, token: str) -> User | None:
        """Whose link it is, which stays as it is; None when it is worth nothing."""
        return self._feed.database.read(lambda tx: links.find(tx, token, purpose))

    def set_password(self, token: str, password: str) -> None:
        """Everybody who was signed in to the account is out, with all tokens; a second factor stays.

        Raises NotFound `link_not_found`, Invalid for the password, TooManyRequests, Unavailable.
        """
        self._limits.take((TRIED, network_of(current().address)))
        user = self.find(Purpose.PASSWORD, token)
        if user is None:
            raise _unknown()
        faults = self._passwords.faults(password, user.username, user.email)
        if faults:
            raise Invalid(faults)
        fields = {"password_hash": self._passwords.hash(password)}

        def reset(tx: Transaction, change: Change) -> None:
            owner = links.consume(tx, token, Purpose.PASSWORD)
            if owner is None:
                raise _unknown()
            record(tx, Event.PASSWORD_RESET, target=owner.id)
            self._people.update(tx, change, owner.id, fields)
            self._sessions.end(tx, change, user_id=owner.id, reason=EndReason.PASSWORD_CHANGED)
            change.note(Cutoff.USER, owner.id)

        self._feed.change(reset)
        # Guesses that strangers made must not keep out who just got in by mail.
        self._login.forgive(user)

    def verify_email(self, token: str) -> None:
        """Raises NotFound `link_not_found`, TooManyRequests."""
        self._limits.take((TRIED, network_of(current().address)))

        def verify(tx: Transaction, change: Change) -> None:
            owner = links.consume(tx, token, Purpose.EMAIL)
            if owner is None:
                raise _unknown()
            owner.email_verified, owner.updated_at = True, utc_now()
            record(tx, Event.EMAIL_VERIFIED, target=owner.id)
            change.note(Cutoff.USER_CHANGED, owner.id)

        self._feed.change(verify)

    def purge(self) -> int:
        return links.purge(self._feed.database)


def _unknown() -> NotFound:
    return NotFound("This link is wrong, was used, or has expired. Ask for a new one.", code="link_not_found")
