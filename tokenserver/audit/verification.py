"""Verification: one pass over a log, in SQL or in an export, that finds whatever is not as it was written.

The newest checkpoint must bear a good signature. Each one holds the hash of the one before it, and names heads of
chains; each event's hash covers the hash before it. So what is vouched for is everything up to the last head named
of each chain, minus what a stub says was pruned.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from tokenserver.audit.chain import GENESIS
from tokenserver.audit.checkpoint import Checkpoint, Stub, digest, parse
from tokenserver.audit.log import Row, fits
from tokenserver.verify.jwks import StaticKeys

LISTED: Final = 100
HASH_BYTES: Final = 32


class Source(Protocol):
    """A log, read once and in this order. `faults`: sentences about what is no record of a log at all."""

    def checkpoints(self) -> Iterator[tuple[int, str]]: ...
    def events(self) -> Iterator[Row]: ...
    def unchained(self) -> Iterator[Row]: ...
    def faults(self) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """`code`: a stable word. `message`: a sentence. `chain` and `position`, or `checkpoint`: where."""

    code: str
    message: str
    chain: str | None = None
    position: int | None = None
    checkpoint: int | None = None


@dataclass(slots=True)
class Report:
    """`events`: those in a chain. `unsealed`: those of them that no checkpoint vouches for yet. `unchained`: events
    from before there were chains. `pruned`: events that stubs stand for. `found`: how many findings there are, of
    which the first `LISTED` are in `findings`."""

    events: int = 0
    chains: int = 0
    checkpoints: int = 0
    unsealed: int = 0
    unchained: int = 0
    pruned: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.found

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok} | asdict(self)


class _Heads:
    """The heads of one chain that checkpoints name, in their order; packed, for there may be very many."""

    __slots__ = ("_hashes", "positions")

    def __init__(self) -> None:
        self.positions = array("q")
        self._hashes = bytearray()

    def add(self, position: int, head: bytes) -> None:
        self.positions.append(position)
        self._hashes += head

    def hash(self, index: int) -> bytes:
        return bytes(self._hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES])


def verify(source: Source, jwks: Mapping[str, Any], issuer: str | None = None) -> Report:
    """`jwks`: the public keys (RFC 7517) that are trusted. `issuer`: whose log it must be."""
    return _Verification(StaticKeys(jwks), issuer).run(source)


class _Verification:
    def __init__(self, keys: StaticKeys, issuer: str | None) -> None:
        self._keys = keys
        self._issuer = issuer
        self._report = Report()
        self._heads: dict[str, _Heads] = {}
        self._stubs: dict[str, Stub] = {}
        self._pruned_checkpoints = 0
        self._first_at: int | None = None  # of the first event in a chain

    def run(self, source: Source) -> Report:
        self._read_checkpoints(source.checkpoints())
        self._read_events(source.events())
        self._read_unchained(source.unchained())
        for fault in source.faults():
            self._add(Finding("export_unreadable", fault))
        return self._report

    def _add(self, finding: Finding) -> None:
        self._report.found += 1
        if len(self._report.findings) < LISTED:
            self._report.findings.append(finding)

    # Checkpoints

    def _read_checkpoints(self, checkpoints: Iterator[tuple[int, str]]) -> None:
        first = last = 0
        before: str | None = None
        newest: Checkpoint | None = None
        for number, jws in checkpoints:
            self._report.checkpoints += 1
            if last and number != last + 1:
                before = None
                missing = f"checkpoints {last + 1} to {number - 1} are missing."
                text = f"Before checkpoint {number}, {missing}" if number > last else "It is not in its order."
                self._found_checkpoint("checkpoint_missing", number, text)
            newest = self._read_checkpoint(number, jws, before)
            first, last, before = first or number, number, digest(jws)
        if newest is not None:
            self._check_newest(newest)
        elif not last:
            self._add(Finding("no_checkpoint", "There is no checkpoint, so nothing vouches for any event."))
        expected = self._pruned_checkpoints + 1
        if first and first != expected:
            which = f"The checkpoints from {expected} to {first - 1} are missing."
            back = f"The checkpoints before {expected} were pruned, but {first} is there."
            self._found_checkpoint("checkpoint_missing", first, which if first > expected else back)

    def _read_checkpoint(self, number: int, jws: str, before: str | None) -> Checkpoint | None:
        """None for one that proves nothing."""
        try:
            checkpoint = parse(jws)
        except ValueError:
            self._found_checkpoint("checkpoint_changed", number, "It can't be read.")
            return None
        if checkpoint.number != number:
            self._found_checkpoint("checkpoint_changed", number, f"It says that it is {checkpoint.number}.")
            return None
        key = self._keys.find(checkpoint.kid)
        if key is not None and not checkpoint.is_signed_with(key):
            self._found_checkpoint("checkpoint_signature", number, "Its signature is wrong.")
            return None
        if before is not None and checkpoint.previous != before:
            self._found_checkpoint(
                "checkpoint_link", number, "It was made after another checkpoint than the one before it."
            )
        self._take(checkpoint)
        return checkpoint

    def _check_newest(self, newest: Checkpoint) -> None:
        if self._keys.find(newest.kid) is None:
            text = "The newest checkpoint is signed with a key that is not in the JWK Set."
            self._found_checkpoint("checkpoint_unverifiable", newest.number, text)
        elif self._issuer is not None and newest.issuer != self._issuer:
            self._found_checkpoint("checkpoint_issuer", newest.number, "It is the checkpoint of another issuer.")

    def _take(self, checkpoint: Checkpoint) -> None:
        number = checkpoint.number
        self._pruned_checkpoints = max(self._pruned_checkpoints, checkpoint.pruned_checkpoints)
        for chain, head in checkpoint.heads.items():
            heads = self._heads.setdefault(chain, _Heads())
            if heads.positions and head.position < heads.positions[-1]:
                text = f"It has chain {chain} end before an earlier checkpoint does."
                self._found_checkpoint("checkpoint_conflict", number, text)
                continue
            heads.add(head.position, bytes.fromhex(head.hash))
        for chain, stub in checkpoint.pruned.items():
            known = self._stubs.get(chain)
            if known is not None and stub.position < known.position:
                text = f"It has chain {chain} begin before an earlier checkpoint does."
                self._found_checkpoint("checkpoint_conflict", number, text)
                continue
            self._stubs[chain] = stub

    def _found_checkpoint(self, code: str, number: int, message: str) -> None:
        self._add(Finding(code, message, checkpoint=number))

    # Events

    def _read_events(self, events: Iterator[Row]) -> None:
        report = self._report
        report.pruned = sum(stub.position for stub in self._stubs.values())
        walk = _Walk("", None, None)
        for row in events:
            chain, position, stored, _ = row
            if chain != walk.chain:
                report.chains += 1
                report.unsealed += walk.unsealed
                self._end(walk)
                if chain < walk.chain:
                    self._add(Finding("chain_misplaced", "This chain is not in its order, or twice.", chain))
                walk = _Walk(chain, self._heads.pop(chain, None), self._stubs.get(chain))
                self._note_time(row[3])
            report.events += 1
            fitting = position == walk.expected and fits(walk.hash, row)
            if fitting and position != walk.next_head:  # the way of nearly all events
                walk.hash = stored
                walk.expected = position + 1
                continue
            for finding in walk.step(position, stored, fits=fitting):
                self._add(finding)
        report.unsealed += walk.unsealed
        self._end(walk)
        for chain, heads in self._heads.items():
            stub = self._stubs.get(chain)
            if heads.positions[-1] > (stub.position if stub else 0):
                last = heads.positions[-1]
                text = f"All events of this chain, up to {last}, are missing."
                self._add(Finding("chain_missing", text, chain, last))

    def _note_time(self, values: tuple[Any, ...]) -> None:
        if values and type(values[1]) is int:
            self._first_at = values[1] if self._first_at is None else min(self._first_at, values[1])

    def _end(self, walk: "_Walk") -> None:
        for finding in walk.end():
            self._add(finding)

    def _read_unchained(self, events: Iterator[Row]) -> None:
        """Nothing proves them, but since there are chains there can be no new ones."""
        for _, _, _, values in events:
            self._report.unchained += 1
            at = values[1] if values else None
            if type(at) is not int or (self._first_at is not None and at > self._first_at):
                event_id = str(values[0])[:36] if values else "unknown"
                text = f"The event {event_id} is in no chain, but from after the first chain began."
                self._add(Finding("event_unchained", text))


class _Walk:
    """Along one chain. `hash`: of the event before the one `expected`. `next_head`: position of the next event
    whose hash a checkpoint names."""

    __slots__ = ("_first", "_heads", "_index", "chain", "expected", "hash", "next_head")

    def __init__(self, chain: str, heads: _Heads | None, stub: Stub | None) -> None:
        self.chain = chain
        self._heads = heads or _Heads()
        self._index = 0
        self.next_head = self._heads.positions[0] if heads else 0
        self.expected, self.hash = (stub.position + 1, bytes.fromhex(stub.hash)) if stub else (1, GENESIS)
        self._first = self.expected
        self._pass(self._first - 1)

    def step(self, position: Any, stored: Any, *, fits: bool) -> Iterator[Finding]:
        """An event that a checkpoint names, or that isn't what was expected."""
        if type(position) is not int:
            yield Finding("event_changed", "An event of this chain has no position.", self.chain)
            return
        if position < self.expected:
            pruned = position < self._first
            text = "It lies before the beginning of the chain." if pruned else "It is there twice, or misplaced."
            yield Finding("event_inserted", f"Event {position}: {text}", self.chain, position)
            return
        if position > self.expected:
            last = position - 1
            which = f"Event {last} is" if last == self.expected else f"Events {self.expected} to {last} are"
            yield Finding("event_missing", f"{which} missing.", self.chain, self.expected)
            self._pass(last)
        elif not fits:
            text = f"Event {position} is not the one that was written here."
            yield Finding("event_changed", text, self.chain, position)
        if isinstance(stored, bytes) and len(stored) == HASH_BYTES:
            self.hash = stored  # so that one fault is found once
        yield from self._check_heads(position)
        self.expected = position + 1

    def _check_heads(self, position: int) -> Iterator[Finding]:
        while self.next_head == position:
            if self._heads.hash(self._index) != self.hash:
                text = f"The chain was written anew: a checkpoint names another event {position}."
                yield Finding("chain_rewritten", text, self.chain, position)
            self._advance()

    def _pass(self, position: int) -> None:
        while self.next_head and self.next_head <= position:
            self._advance()

    def _advance(self) -> None:
        self._index += 1
        positions = self._heads.positions
        self.next_head = positions[self._index] if self._index < len(positions) else 0

    @property
    def unsealed(self) -> int:
        sealed = max(self._heads.positions[-1] if self._heads.positions else 0, self._first - 1)
        return max(0, self.expected - 1 - sealed)

    def end(self) -> Iterator[Finding]:
        if self.next_head:
            last = self._heads.positions[-1]
            which = f"Event {last} is" if last == self.expected else f"Events {self.expected} to {last} are"
            text = f"{which} missing: the end of the chain was cut off."
            yield Finding("chain_cut", text, self.chain, self.expected)
