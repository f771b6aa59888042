"""What each process does beside answering: carry checkpoints, mend the mirror, pick up keys, drop what expired.

All of it is safe to run in every process at once; leases in Redis keep most of it to one.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from tokenserver.audit import usage
from tokenserver.errors import Unavailable
from tokenserver.rooms import Rooms
from tokenserver.signals import metrics
from tokenserver.storage.feed import SKEW_MS, now_ms
from tokenserver.storage.sql import unhurried, utc_now

logger = logging.getLogger("tokenserver.background")

DRAIN_SECONDS: Final = 0.1
CANDIDATE_SECONDS: Final = 0.2  # longer, between two looks whether this process has to lead from now on
# A batch costs as much as some hundred events; who reads the log or the counts carries first.
CARRY_SECONDS: Final = 0.5
LOGOUT_SECONDS: Final = 0.4
MAIL_SECONDS: Final = 1.0
FOLLOW_SECONDS: Final = 1.0
RECONCILE_SECONDS: Final = 1.0
KEYS_SECONDS: Final = 2.0
PURGE_SECONDS: Final = 60.0
SEAL_SECONDS: Final = 30.0
FORGET_SECONDS: Final = 3600.0


class Background:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._has_led = False
        self._reconciled_at = 0  # ms; 0 while another process leads, or since something failed

    def start(self) -> None:
        chores: tuple[tuple[Callable[[], object], float], ...] = (
            (self._drain, DRAIN_SECONDS),
            (self._carry, CARRY_SECONDS),
            (self._tell_of_logouts, LOGOUT_SECONDS),
            (self._send_mail, MAIL_SECONDS),
            (self._follow, FOLLOW_SECONDS),
            (self._reconcile, RECONCILE_SECONDS),
            (self._keys, KEYS_SECONDS),
            (unhurried()(self._seal), SEAL_SECONDS),
            (unhurried()(self._purge), PURGE_SECONDS),
            (unhurried()(self._forget), FORGET_SECONDS),
        )
        for chore, seconds in chores:
            name = getattr(chore, "__name__", "chore").strip("_")
            thread = threading.Thread(target=self._repeat, args=(chore, seconds, name), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=2)

    def _repeat(self, chore: Callable[[], object], seconds: float, name: str) -> None:
        failing = False
        while not self._stopped.wait(seconds):
            try:
                self._rooms.clock.require()  # what isn't expired yet would be deleted
                chore()
                failing = False
            except Unavailable as error:
                if not failing:  # once per outage, not ten times a second
                    logger.warning("%s waits: %s", name, error.private)
                failing = True
            except Exception:
                logger.exception("%s failed", name)
                self._stopped.wait(5)

    def _drain(self) -> None:
        """A lease keeps it to one process, though more would do no harm."""
        self._rooms.checkpoints.drain_all()
        if not self._rooms.checkpoints.leading:
            self._stopped.wait(CANDIDATE_SECONDS)

    def _carry(self) -> None:
        if self._rooms.checkpoints.leading:
            self._rooms.trail.drain_all()
            if not self._has_led:
                self._rooms.sealer.seal()  # who led before may have died with the newest events unsealed
        self._has_led = self._rooms.checkpoints.leading

    def _tell_of_logouts(self) -> None:
        if self._rooms.checkpoints.leading:
            self._rooms.backchannel_logout.deliver()

    def _send_mail(self) -> None:
        if self._rooms.checkpoints.leading:
            self._rooms.mail.deliver()

    def _follow(self) -> None:
        """In every process, whoever leads: what it knows is what it answers by."""
        self._rooms.feed.follow()
        metrics.feed_followed_at.set(time.time())

    def _reconcile(self) -> None:
        """What was committed since the last time; everything, after a failure and when this process begins to
        lead: nobody knows then how long entries may have waited."""
        since, self._reconciled_at = self._reconciled_at, 0
        if self._rooms.checkpoints.leads():
            started = now_ms()
            mended = self._rooms.feed.reconcile(max(0, since - SKEW_MS))
            if mended:
                logger.info("mirrored %d entries before their writer, or instead of one that died", mended)
            self._reconciled_at = started

    def _keys(self) -> None:
        rooms, settings = self._rooms, self._rooms.settings
        rooms.keys.reload_if_changed()
        if settings.key_rotation_interval and rooms.keys.rotate_if_due(settings.key_rotation_interval):
            logger.info("the signing key was rotated on schedule")

    def _purge(self) -> None:
        rooms = self._rooms
        if self._reconciled_at:
            stores = (
                rooms.feed,
                rooms.sessions,
                rooms.codes,
                rooms.collaborators.devices,
                rooms.client_authentication,
                rooms.initial_access_tokens,
                rooms.known_devices,
                rooms.challenges,
                rooms.recovery,
                rooms.mail,
            )
            while any(each.purge() for each in stores):
                if self._stopped.wait(0.05):
                    return
            rooms.database.write(usage.purge)
            rooms.clients.reseal()
            rooms.second_factors.apps.reseal()
            rooms.keys.prune()

    def _seal(self) -> None:
        if self._rooms.checkpoints.leading:
            self._rooms.sealer.seal()

    def _forget(self) -> None:
        kept = self._rooms.settings.audit_retention
        if not self._rooms.checkpoints.leading:
            return
        self._rooms.sealer.seal(everything=True)  # what was committed long after it happened, too
        if kept:
            self._rooms.retention.prune(utc_now() - timedelta(seconds=kept))
