"""What the metrics tell of the whole deployment, looked up in its stores when somebody asks: every node says the
same.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import func, select

from tokenserver import readiness
from tokenserver.audit import checkpoint
from tokenserver.audit.models import AuditCheckpoint, AuditEvent
from tokenserver.audit.trail import events_key
from tokenserver.errors import TokenserverError
from tokenserver.mail.models import QueuedMail
from tokenserver.rooms import Rooms
from tokenserver.signals.instruments import PREFIX
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import LogoutDelivery
from tokenserver.tokens.refresh_token import rotations_key

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

# Of Redis, whose ids begin with the ms since 1970.
STREAMS: Final[dict[str, Callable[[int], str]]] = {"events": events_key, "rotations": rotations_key}
QUEUES: Final[dict[str, type[QueuedMail] | type[LogoutDelivery]]] = {"mail": QueuedMail, "logout": LogoutDelivery}
# Parameters of the stores' URLs that name certificates.
USES: Final = {
    "sslcert": "client",
    "sslrootcert": "authority",
    "ssl_certfile": "client",
    "ssl_ca_certs": "authority",
}
Value = tuple[float, tuple[str, ...]]


class Asked(NamedTuple):
    """One metric. `look`: its values, each with its labels."""

    name: str
    text: str
    labels: tuple[str, ...]
    look: Callable[[Rooms], Iterable[Value]]


def collect(rooms: Rooms) -> "Iterator[GaugeMetricFamily]":
    """What a store can't tell right now is missing, and its part isn't ready."""
    from prometheus_client.core import GaugeMetricFamily

    for asked in ASKED:
        family = GaugeMetricFamily(PREFIX + asked.name, asked.text, labels=asked.labels)
        try:
            for value, labels in asked.look(rooms):
                family.add_metric(labels, value)
        except TokenserverError:
            continue
        yield family


def _build(_rooms: Rooms) -> Iterator[Value]:
    yield 1, (version("tokenserver"), ".".join(map(str, sys.version_info[:3])))


def _ready(rooms: Rooms) -> Iterator[Value]:
    for part in readiness.parts(rooms):
        yield not part.is_missing, (part.name,)


def _key_ages(rooms: Rooms) -> Iterator[Value]:
    """Of the oldest in each state, since it came into that state."""
    now = time.time()
    oldest: dict[tuple[str, ...], float] = {}
    for entry in rooms.keys.entries():
        since = entry.retired_at or entry.activated_at or entry.published_at
        place: tuple[str, ...] = (entry.alg, entry.state)
        oldest[place] = max(oldest.get(place, 0.0), now - since)
    for place, age in oldest.items():
        yield age, place


def _stream_lengths(rooms: Rooms) -> Iterator[Value]:
    for name, key in STREAMS.items():
        yield sum(_length(rooms, bucket, key(bucket)) for bucket in rooms.store.buckets), (name,)


def _length(rooms: Rooms, bucket: int, key: str) -> int:
    return rooms.store.ask_unverified(bucket, lambda client: client.xlen(key))[1]


def _stream_lags(rooms: Rooms) -> Iterator[Value]:
    """Since the oldest entry that waits was written, by the clock of Redis."""
    for name, key in STREAMS.items():
        yield max(_lag(rooms, bucket, key(bucket)) for bucket in rooms.store.buckets), (name,)


def _lag(rooms: Rooms, bucket: int, key: str) -> float:
    _, items = rooms.store.ask_unverified(
        bucket, lambda c: cast("list[tuple[str, dict[str, str]]]", c.xrange(key, count=1))
    )
    if not items:
        return 0.0
    _, (seconds, microseconds) = rooms.store.ask_unverified(bucket, lambda c: c.time())
    written = int(items[0][0].partition("-")[0])
    return max(0.0, float(seconds) + float(microseconds) / 1e6 - written / 1000)


def _unsealed_age(rooms: Rooms) -> Iterator[Value]:
    """Since the first event was recorded that no checkpoint was made after."""

    def look(tx: Transaction) -> datetime | None:
        sealed_at = tx.scalar(select(AuditCheckpoint.at).order_by(AuditCheckpoint.number.desc()).limit(1))
        query = select(func.min(AuditEvent.at))
        return tx.scalar(query if sealed_at is None else query.where(AuditEvent.at > sealed_at))

    yield _age(rooms.database.read(look)), ()


def _checkpoint(rooms: Rooms) -> Iterator[Value]:
    """Whether the newest checkpoint is what a key of the ring signed."""
    newest = select(AuditCheckpoint.jws).order_by(AuditCheckpoint.number.desc()).limit(1)
    jws = rooms.database.read(lambda tx: tx.scalar(newest))
    if jws is not None:
        yield _is_good(rooms, jws), ()


def _is_good(rooms: Rooms, jws: str) -> bool:
    try:
        found = checkpoint.parse(jws)
    except ValueError:
        return False
    key = rooms.keys.find(found.kid)
    return key is not None and found.is_signed_with(key)


def _waiting(rooms: Rooms) -> Iterator[Value]:
    for name, row in QUEUES.items():
        count = select(func.count()).select_from(row)
        yield rooms.database.read(lambda tx, count=count: tx.scalar(count)) or 0, (name,)  # type: ignore[misc]


def _waiting_ages(rooms: Rooms) -> Iterator[Value]:
    for name, row in QUEUES.items():
        oldest = select(func.min(row.created_at))
        yield _age(rooms.database.read(lambda tx, oldest=oldest: tx.scalar(oldest))), (name,)  # type: ignore[misc]


def _age(since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())


def _certificates(rooms: Rooms) -> Iterator[Value]:
    """Of the files that the URLs of the stores name; the first one to end, where a file has several."""
    from cryptography import x509

    urls = {"database": rooms.settings.database_url, "redis": rooms.settings.redis_url}
    for store, url in urls.items():
        for option, use in USES.items():
            for path in parse_qs(urlsplit(url).query).get(option, ()):
                try:
                    found = x509.load_pem_x509_certificates(Path(path).read_bytes())
                except (OSError, ValueError):
                    continue
                yield min(each.not_valid_after_utc.timestamp() for each in found), (store, use)


ASKED: Final = (
    Asked("build_info", "1, of this version.", ("version", "python"), _build),
    Asked("ready", "1 where the part is as it must be for requests to be served.", ("part",), _ready),
    Asked(
        "signing_key_age_seconds", "Since the oldest key of the state came into it.", ("alg", "state"), _key_ages
    ),
    Asked(
        "key_rotation_interval_seconds",
        "Age at which the active key is replaced; 0: by command alone.",
        (),
        lambda rooms: [(rooms.settings.key_rotation_interval, ())],
    ),
    Asked("stream_length", "Entries of Redis that wait to be carried into SQL.", ("stream",), _stream_lengths),
    Asked("stream_lag_seconds", "Age of the oldest entry that waits.", ("stream",), _stream_lags),
    Asked("audit_unsealed_age_seconds", "Age of the oldest event after the newest checkpoint.", (), _unsealed_age),
    Asked("audit_checkpoint_valid", "1 when a key of the ring signed the newest checkpoint.", (), _checkpoint),
    Asked("queue_length", "Mails, and ends of sessions to tell clients of, that wait.", ("queue",), _waiting),
    Asked("queue_age_seconds", "Age of the oldest of them.", ("queue",), _waiting_ages),
    Asked(
        "certificate_expiry_timestamp_seconds",
        "When a certificate ends that a store's URL names.",
        ("store", "use"),
        _certificates,
    ),
)
