"""Clients are told that a session has ended, until they know (OIDC Back-Channel Logout section 2.5).

`Sessions.end` writes down whom to tell in the transaction of the end itself. Here is who tells them: the process
that leads, in a thread for each client, so that one which doesn't answer keeps no other waiting.

Each client is told at least once: a delivery is claimed before it is sent and deleted after the answer, so one
whose process died between the two is sent again, with the same `jti`.
"""

import logging
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import delete, select, update

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients.registry import Client, Clients
from tokenserver.config import Settings
from tokenserver.errors import Unavailable
from tokenserver.oauth import logout_token
from tokenserver.oauth.subject import Subjects
from tokenserver.signals import metrics
from tokenserver.storage.feed import Feed
from tokenserver.storage.sql import Transaction, utc_now
from tokenserver.tokens.key_files import RingUnusable
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.tokens.models import LogoutDelivery
from tokenserver.web.fetch import Fetcher, FetchFailed
from tokenserver.web.request_context import current

logger = logging.getLogger("tokenserver.logout")

THREADS: Final = 8
# Seconds after the first failure, the second …; the last one again and again.
PAUSES: Final = (1, 5, 30, 120, 600, 3600)
GIVEN_UP_SECONDS: Final = 6 * 3600
# Longer than any attempt takes. Who claimed one and still has it died.
CLAIM_SECONDS: Final = 60
# Section 2.8; with 204 answer frameworks that have nothing to say.
DELIVERED: Final = frozenset({200, 204})
NEVER: Final = datetime.min.replace(tzinfo=UTC)


class BackchannelLogout:
    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        keys: KeyRing,
        clients: Clients,
        subjects: Subjects,
        fetcher: Fetcher,
    ) -> None:
        self._issuer = settings.issuer
        self._alg = settings.signing_alg
        self._feed = feed
        self._database = feed.database
        self._keys = keys
        self._clients = clients
        self._fetcher = fetcher
        self._subjects = subjects
        self._lock = threading.Lock()
        self._in_hand: set[str] = set()
        self._failed_at: dict[str, datetime] = {}

    def deliver(self) -> None:
        """Begin with the clients for which something is due. To be called some times a second, where `leads`."""
        due = select(LogoutDelivery.client_id).where(LogoutDelivery.due_at <= utc_now()).distinct()
        waiting = set(self._database.read(lambda tx: tx.scalars(due).all())) - self._in_hand
        if waiting:
            self._feed.sync()  # clients are known as of now
        # Who failed last comes last: not even many dead ones can keep the others from their turn.
        for client_id in sorted(waiting, key=lambda each: self._failed_at.get(each, NEVER)):
            client = self._clients.find(client_id)
            if client is None or client.metadata.backchannel_logout_uri is None:
                self._drop(client_id)
            elif len(self._in_hand) < THREADS:
                with self._lock:
                    self._in_hand.add(client_id)
                telling = (client, client.metadata.backchannel_logout_uri)
                # Nothing waits for it when the process stops: whatever it had in hand is sent again.
                threading.Thread(target=self._tell, args=telling, name="logout", daemon=True).start()

    def _drop(self, client_id: str) -> None:
        """It wants to be told nothing."""
        unwanted = delete(LogoutDelivery).where(LogoutDelivery.client_id == client_id)
        self._database.write(lambda tx: tx.execute(unwanted))

    def _tell(self, client: Client, uri: str) -> None:
        """All that is due for the client, one after the other, until it fails."""
        current().client_id = client.client_id
        try:
            while delivery := self._database.write(lambda tx: _claim(tx, client.client_id)):
                failure = self._attempt(client, uri, delivery)
                metrics.logouts.count(self._database.write(partial(_settle, delivery=delivery, failure=failure)))
                if failure:
                    self._failed_at[client.client_id] = utc_now()
                    return
                self._failed_at.pop(client.client_id, None)
        except Unavailable as error:
            logger.warning("logout of %s waits: %s", client.client_id, error.private)
        except Exception:
            logger.exception("logout of %s failed", client.client_id)
        finally:
            with self._lock:
                self._in_hand.discard(client.client_id)

    def _attempt(self, client: Client, uri: str, delivery: LogoutDelivery) -> str | None:
        """Why it failed; None when the client knows."""
        try:
            token = logout_token.mint(
                # Section 2.6: signed as the client's ID tokens are
                self._keys.signer(client.metadata.id_token_signed_response_alg or self._alg),
                issuer=self._issuer,
                subject=self._subjects.of(client, delivery.user_id),
                client_id=client.client_id,
                session_id=delivery.session_id,
                delivery_id=delivery.id,
            )
            status = self._fetcher.post_form(uri, {"logout_token": token})
        except FetchFailed:
            return "unreachable"
        except RingUnusable:
            return "no_signing_key"
        return None if status in DELIVERED else f"status_{status}"


def _claim(tx: Transaction, client_id: str) -> LogoutDelivery | None:
    """The next one that is due, kept from everybody else for a minute."""
    now = utc_now()
    due = select(LogoutDelivery).where(LogoutDelivery.client_id == client_id, LogoutDelivery.due_at <= now)
    delivery = tx.scalar(due.order_by(LogoutDelivery.due_at).limit(1).with_for_update(skip_locked=True))
    if delivery is not None:
        delivery.attempts += 1
        delivery.due_at = now + timedelta(seconds=CLAIM_SECONDS)
    return delivery


def _settle(tx: Transaction, *, delivery: LogoutDelivery, failure: str | None) -> str:
    """What became of it, as the metrics call it. `failure`: None when the client knows."""
    attempts, mine = delivery.attempts, LogoutDelivery.id == delivery.id
    if failure is None:
        tx.execute(delete(LogoutDelivery).where(mine))
        record(tx, Event.LOGOUT_DELIVERED, target=delivery.session_id, attempts=attempts)
        return "delivered"
    due_at = utc_now() + timedelta(seconds=PAUSES[min(attempts, len(PAUSES)) - 1])
    gives_up = due_at > delivery.created_at + timedelta(seconds=GIVEN_UP_SECONDS)
    if gives_up:
        tx.execute(delete(LogoutDelivery).where(mine))
    else:
        tx.execute(update(LogoutDelivery).where(mine).values(due_at=due_at))
    record(
        tx,
        Event.LOGOUT_FAILED,
        target=delivery.session_id,
        reason=failure,
        outcome="failed",
        attempts=attempts,
        given_up=gives_up,
    )
    return "given_up" if gives_up else "failed"
