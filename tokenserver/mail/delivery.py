"""Letters are written and sent, each until the mail server takes it: at least once, with pauses that grow.

The process that leads does it. A letter is claimed before it is sent and deleted after the answer, so one whose
process died between the two is sent again.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.config import Settings
from tokenserver.errors import TooManyRequests
from tokenserver.mail.message import Letter, message_of
from tokenserver.mail.models import Kind, QueuedMail
from tokenserver.mail.transport import NotSent, Transport, transport_of
from tokenserver.signals import metrics
from tokenserver.storage.sql import Database, Transaction, utc_now
from tokenserver.web.rate_limit import Limit, RateLimits

logger = logging.getLogger("tokenserver.mail")

# Seconds after the first failure, the second …; the last one again and again.
PAUSES: Final = (5, 30, 120, 600, 3600)
# Then nobody waits for it any more; least of all for a link that somebody asked for.
GIVEN_UP_SECONDS: Final = {Kind.PASSWORD_RESET: 1800}
OTHERS_GIVEN_UP_SECONDS: Final = 24 * 3600
# Longer than any attempt takes. Who claimed one and still has it died.
CLAIM_SECONDS: Final = 300
# For so long after the server was away the other letters wait, too.
OUTAGE_SECONDS: Final = 5.0
KEPT: Final = timedelta(days=2)
# To one address, whoever asks for it: a mailbox must not be filled through this server.
LINKS: Final = Limit("mail-links", burst=5, interval_ms=600_000, is_shown=False)
LIMITED: Final = frozenset({Kind.EMAIL_VERIFICATION, Kind.PASSWORD_RESET})


class Delivery:
    """`write`: the letter, in a transaction of its own; None when there is nobody to get it."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        limits: RateLimits,
        write: Callable[[Transaction, QueuedMail], Letter | None],
    ) -> None:
        self._transport = transport_of(settings)
        self._sender = settings.mail_sender
        self._database = database
        self._limits = limits
        self._write = write
        self._away_until = 0.0

    def deliver(self) -> None:
        """All that is due, one after the other. To be called some times a second, where `leads`."""
        if self._transport is None:
            return
        while time.monotonic() >= self._away_until:
            mail = self._database.write(_claim)
            if mail is None:
                return
            self._settle(mail, self._attempt(self._transport, mail))

    def purge(self, limit: int = 500) -> int:
        """Delete what is left of a time when mail could be sent; at most `limit`; how many."""

        def old(tx: Transaction) -> int:
            query = select(QueuedMail.id).where(QueuedMail.created_at < utc_now() - KEPT).limit(limit)
            ids = tx.scalars(query).all()
            tx.execute(delete(QueuedMail).where(QueuedMail.id.in_(ids)))
            return len(ids)

        return self._database.write(old)

    def _attempt(self, transport: Transport, mail: QueuedMail) -> NotSent | None:
        """Why it was not sent; None when it was, or need not be."""
        try:
            if mail.attempts == 1 and mail.kind in LIMITED:
                self._limits.take((LINKS, mail.recipient.casefold()))
            letter = self._database.write(lambda tx: self._write(tx, mail))
            if letter is None:
                return None
            # Each attempt has an id of its own: what is taken for a copy may be thrown away, with its new link.
            message = message_of(letter, sender=self._sender, message_id=f"{mail.id}.{mail.attempts}")
            transport.send(message, letter.link)
        except TooManyRequests:
            logger.warning("too many mails to one address: a %s is not sent", mail.kind)
            metrics.mails.count("limited")
        except NotSent as failure:
            return failure
        except ValueError:
            return NotSent("bad_address", is_final=True)
        return None

    def _settle(self, mail: QueuedMail, failure: NotSent | None) -> None:
        if failure is not None:
            logger.warning("a %s was not sent: %s", mail.kind, failure.reason)
            if failure.is_outage:
                self._away_until = time.monotonic() + OUTAGE_SECONDS
        metrics.mails.count(self._database.write(lambda tx: _settle(tx, mail, failure)))


def _claim(tx: Transaction) -> QueuedMail | None:
    """The next one that is due, kept from everybody else for some minutes."""
    now = utc_now()
    due = select(QueuedMail).where(QueuedMail.due_at <= now).order_by(QueuedMail.due_at).limit(1)
    mail = tx.scalar(due.with_for_update(skip_locked=True))
    if mail is not None:
        mail.attempts += 1
        mail.due_at = now + timedelta(seconds=CLAIM_SECONDS)
    return mail


def _settle(tx: Transaction, mail: QueuedMail, failure: NotSent | None) -> str:
    """What became of it, as the metrics call it."""
    mine = QueuedMail.id == mail.id
    if failure is None:
        tx.execute(delete(QueuedMail).where(mine))
        return "sent"
    due_at = utc_now() + timedelta(seconds=PAUSES[min(mail.attempts, len(PAUSES)) - 1])
    patience = GIVEN_UP_SECONDS.get(Kind(mail.kind), OTHERS_GIVEN_UP_SECONDS)
    gives_up = failure.is_final or due_at > mail.created_at + timedelta(seconds=patience)
    if gives_up:
        tx.execute(delete(QueuedMail).where(mine))
    else:
        tx.execute(update(QueuedMail).where(mine).values(due_at=due_at))
    record(
        tx,
        Event.MAIL_FAILED,
        target=mail.user_id,
        reason=failure.reason,
        outcome="failed",
        mail=mail.kind,
        attempts=mail.attempts,
        given_up=gives_up,
    )
    return "given_up" if gives_up else "failed"
