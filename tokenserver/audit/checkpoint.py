"""Checkpoints: signed statements of where the chains ended, each a JWS (RFC 7515) with the hash of the one before.

The newest one vouches for all the others, and so for every event up to the heads that they name.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from threading import RLock
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from tokenserver.audit.chain import microseconds
from tokenserver.audit.models import AuditCheckpoint, AuditEvent
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.sql import Database, Transaction, utc_now
from tokenserver.verify.compact import REFUSED, decode
from tokenserver.verify.json_object import json_object
from tokenserver.verify.jwks import PublicKey

TYP: Final = "audit-checkpoint+jwt"
# Between the time of an event and its commit. What comes still later is found by the next look at all chains.
MARGIN: Final = timedelta(minutes=2)
MAX_TRIES: Final = 10
LARGEST: Final = 2**63 - 1
HASH: Final = re.compile(r"[0-9a-f]{64}")
CHAIN: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Head(NamedTuple):
    """The last event of a chain that a checkpoint vouches for; the hash as hex."""

    position: int
    hash: str


class Stub(NamedTuple):
    """The last event that was pruned from a chain, where what is left of it begins. `at`: µs since 1970."""

    position: int
    hash: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a JWS claims; nothing of it is verified. `previous`: SHA-256 of the JWS before it, as hex. `heads`: of
    the chains that advanced. `pruned`: of the chains that were shortened. `pruned_checkpoints`: those up to this
    number were deleted."""

    kid: str
    alg: str
    issuer: str
    number: int
    at: int
    previous: str | None
    heads: dict[str, Head]
    pruned: dict[str, Stub]
    pruned_checkpoints: int
    signing_input: bytes
    signature: bytes

    @property
    def is_look(self) -> bool:
        """Whether it was made by looking for chains that advanced."""
        return not self.pruned and not self.pruned_checkpoints

    def is_signed_with(self, key: PublicKey) -> bool:
        # RFC 8725 section 3.1: a key is used with its own algorithm alone.
        return key.alg == self.alg and key.verify(self.signature, self.signing_input)


def digest(jws: str) -> str:
    return sha256(jws.encode("utf-8", "surrogatepass")).hexdigest()


def parse(jws: str) -> Checkpoint:
    """ValueError for what is not a checkpoint of this form."""
    signing_input, _, signature = jws.encode("ascii").rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    kid, alg = _header(header)
    try:
        claims = json.loads(decode(payload))
        return Checkpoint(
            kid=kid,
            alg=alg,
            issuer=_text(claims["iss"]),
            number=_ordinal(claims["number"]),
            at=_whole(claims["at"]),
            previous=None if claims["previous"] is None else _hash(claims["previous"]),
            heads={_chain(c): Head(_ordinal(p), _hash(h)) for c, (p, h) in claims["heads"].items()},
            pruned={
                _chain(c): Stub(_ordinal(p), _hash(h), _whole(at))
                for c, (p, h, at) in claims.get("pruned", {}).items()
            },
            pruned_checkpoints=_whole(claims.get("pruned_checkpoints", 0)),
            signing_input=signing_input,
            signature=decode(signature),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not the claims of a checkpoint") from error


@lru_cache(maxsize=64)
def _header(segment: bytes) -> tuple[str, str]:
    header = json_object(decode(segment))
    kid, alg = header.get("kid"), header.get("alg")
    # RFC 8725 section 3.11: so that no other JWT of the issuer passes for a checkpoint.
    if header.get("typ") != TYP or not REFUSED.isdisjoint(header):
        raise ValueError("not the header of a checkpoint")
    return _text(kid), _text(alg)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError("not a whole number")
    return value


def _ordinal(value: object) -> int:
    if not _whole(value):
        raise ValueError("not counted from 1")
    return _whole(value)


def _hash(value: str) -> str:
    if not HASH.fullmatch(value):
        raise ValueError("not a hash")
    return value


def _chain(value: str) -> str:
    if not CHAIN.fullmatch(value):
        raise ValueError("not the id of a chain")
    return value


class Ledger:
    """What all checkpoints together say, read once and from then on only what is new. It verifies nothing: it is
    for the process that adds the next one.

    `heads` and `stubs`: the newest of each chain, and the number of the checkpoint that names it. `looked_at`: when
    chains that advanced were last looked for.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.number = 0
        self.digest: str | None = None
        self.signed_by: tuple[str, str] | None = None
        self.looked_at: datetime | None = None
        self.heads: dict[str, tuple[int, int]] = {}
        self.stubs: dict[str, tuple[Stub, int]] = {}

    def catch_up(self, tx: Transaction) -> None:
        if self.number and self._newest_in(tx) != self.digest:
            self._begin()  # the database was restored from a backup
        query = select(AuditCheckpoint.number, AuditCheckpoint.at, AuditCheckpoint.jws)
        query = query.where(AuditCheckpoint.number > self.number).order_by(AuditCheckpoint.number)
        for number, at, jws in tx.execute(query, execution_options={"yield_per": 1000}):
            self._add(number, at, jws)

    def _newest_in(self, tx: Transaction) -> str | None:
        jws = tx.scalar(select(AuditCheckpoint.jws).where(AuditCheckpoint.number == self.number))
        return None if jws is None else digest(jws)

    def _add(self, number: int, at: datetime, jws: str) -> None:
        self.number, self.digest = number, digest(jws)
        try:
            checkpoint = parse(jws)
        except ValueError:  # verification says so
            self.signed_by = None
            return
        self.signed_by = checkpoint.kid, checkpoint.issuer
        if checkpoint.is_look:
            self.looked_at = at
        for chain, head in checkpoint.heads.items():
            if head.position >= self.sealed(chain):
                self.heads[chain] = head.position, number
        for chain, stub in checkpoint.pruned.items():
            self.stubs[chain] = stub, number

    def sealed(self, chain: str) -> int:
        """Up to which position the chain is vouched for."""
        return self.heads.get(chain, (0, 0))[0]

    def stub(self, chain: str) -> Stub | None:
        found = self.stubs.get(chain)
        return found and found[0]


class Sealer:
    """Makes checkpoints. Any number of processes may do it at once: the number that a checkpoint takes decides.

    `sign`: claims to a JWS of the type `TYP`. `kid`: of the key that it will sign with.
    """

    def __init__(
        self, database: Database, sign: Callable[[Mapping[str, Any]], str], kid: Callable[[], str], issuer: str
    ) -> None:
        self._database = database
        self._sign = sign
        self._kid = kid
        self._issuer = issuer
        self._ledger = Ledger()
        self._lock = RLock()
        self._seen_all = False

    def seal(self, *, everything: bool = False) -> int | None:
        """The number of the new checkpoint, None when there is nothing that the last one doesn't say.

        One is made when a chain advanced, and when the key or the issuer is another one. `everything`: look at all
        chains, as the first call does; else at those of late.
        """
        with self._lock:
            now = utc_now()  # before looking, so that the next look begins where this one may have missed something
            everything = everything or not self._seen_all
            heads = self._database.read(lambda tx: self._find_heads(tx, everything=everything))

            def draft(_tx: Transaction, ledger: Ledger) -> dict[str, Any] | None:
                fresh = {chain: head for chain, head in heads.items() if head.position > ledger.sealed(chain)}
                if fresh or ledger.signed_by != (self._kid(), self._issuer):
                    return {"heads": fresh}
                return None

            number = self.add(draft, at=now)
            self._seen_all = True
            return number

    def unsealed(self) -> int:
        """How many events no checkpoint vouches for yet, of the chains that advanced of late."""
        with self._lock:
            heads = self._database.read(lambda tx: self._find_heads(tx, everything=False))
            return sum(max(0, head.position - self._ledger.sealed(chain)) for chain, head in heads.items())

    def add(
        self,
        draft: Callable[[Transaction, Ledger], Mapping[str, Any] | None],
        *,
        at: datetime | None = None,
    ) -> int | None:
        """Add the checkpoint with the claims that `draft` answers, in the transaction that it worked in; nothing if
        it answers None. It is called again when another process was faster."""
        with self._lock:
            for attempt in range(MAX_TRIES):
                try:
                    return self._database.write(lambda tx: self._insert(tx, draft, at or utc_now()))
                except IntegrityError:
                    time.sleep(random.uniform(0.5, 1.0) * 0.002 * 2**attempt)  # noqa: S311 - jitter, no secret
            raise StoreUnavailable("sql", "other processes made each checkpoint before us")

    def _insert(
        self, tx: Transaction, draft: Callable[[Transaction, Ledger], Mapping[str, Any] | None], at: datetime
    ) -> int | None:
        ledger = self._ledger
        ledger.catch_up(tx)
        claims = draft(tx, ledger)
        if claims is None:
            return None
        number = ledger.number + 1
        payload = {
            "iss": self._issuer,
            "number": number,
            "at": microseconds(at),
            "previous": ledger.digest,
            "heads": {},
        }
        tx.execute(insert(AuditCheckpoint).values(number=number, at=at, jws=self._sign(payload | dict(claims))))
        return number

    def _find_heads(self, tx: Transaction, *, everything: bool) -> dict[str, Head]:
        self._ledger.catch_up(tx)
        since = self._ledger.looked_at
        query = _all_heads() if everything or since is None else _heads_since(since - MARGIN)
        return dict(_named(tx, query))


def _named(tx: Transaction, query: Select[Any]) -> Iterator[tuple[str, Head]]:
    for chain, position, head in tx.execute(query):
        if head is not None:
            yield str(chain), Head(position, head.hex())


def _heads_since(since: datetime) -> Select[Any]:
    # Grouped by a value that has no index: SQLite would walk through the whole log in the index of the chains.
    chain = func.coalesce(AuditEvent.chain, AuditEvent.chain)
    newest = (
        select(chain.label("chain"), func.max(AuditEvent.position).label("position"))
        .where(AuditEvent.at >= since)
        .group_by(chain)
        .subquery()
    )
    is_newest = (AuditEvent.chain == newest.c.chain) & (AuditEvent.position == newest.c.position)
    return select(AuditEvent.chain, AuditEvent.position, AuditEvent.hash).join(newest, is_newest)


def _all_heads() -> Select[Any]:
    """One step in the index from chain to chain, so that its cost is that of the chains, not of the events."""
    event = aliased(AuditEvent)
    first = select(event.chain).where(event.chain.is_not(None)).order_by(event.chain).limit(1)
    chains = select(first.scalar_subquery().label("chain")).cte("chains", recursive=True)
    after = select(event.chain).where(event.chain > chains.c.chain).order_by(event.chain).limit(1)
    chains = chains.union_all(
        select(after.correlate(chains).scalar_subquery().label("chain")).where(chains.c.chain.is_not(None))
    )
    last = select(func.max(event.position)).where(event.chain == chains.c.chain).correlate(chains).scalar_subquery()
    is_last = (AuditEvent.chain == chains.c.chain) & (AuditEvent.position == last)
    return select(AuditEvent.chain, AuditEvent.position, AuditEvent.hash).join(chains, is_last)
