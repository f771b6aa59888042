"""The log as JSON Lines (one JSON object a line, in ASCII), written and read back.

    {"format": "tokenserver-audit", "version": 1, "issuer": …, "exported_at": …}
    {"checkpoint": number, "jws": …}                                  by number
    {"chain": …, "position": …, "hash": …, "id": …, "at": µs, …}      chain after chain, by position
    {"chain": null, "position": null, "hash": null, "id": …, …}       from before there were chains, by time
    {"end": {"checkpoints": how many lines of them, "events": how many lines of them}}

Checkpoints come first so that whoever reads it needs to go through it once.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC
from operator import itemgetter
from typing import Any, BinaryIO, Final

from tokenserver.audit.chain import NAMES
from tokenserver.audit.log import Log, Row, decode_json
from tokenserver.errors import FieldError, Invalid
from tokenserver.storage.sql import utc_now

FORMAT: Final = "tokenserver-audit"
VERSION: Final = 1
LONGEST_LINE: Final = 256 << 20  # a first checkpoint may name very many chains
LISTED: Final = 100  # faults that are told one by one
MEMBERS: Final = ("chain", "position", "hash", *NAMES)
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_values_of: Final = itemgetter(*NAMES)


def write_export(log: Log, issuer: str, write: Callable[[str], object]) -> dict[str, int]:
    """How many checkpoints and events were written."""
    exported_at = utc_now().astimezone(UTC).isoformat().replace("+00:00", "Z")
    header = {"format": FORMAT, "version": VERSION, "issuer": issuer, "exported_at": exported_at}
    write(_encode(header) + "\n")
    counts = {"checkpoints": 0, "events": 0}
    for number, jws in log.checkpoints():
        write(_encode({"checkpoint": number, "jws": jws}) + "\n")
        counts["checkpoints"] += 1
    for rows in (log.events(), log.unchained()):
        for chain, position, stored, values in rows:
            place = (chain, position, stored.hex() if isinstance(stored, bytes) else None)
            # Without values, a row that is no event of ours stays one for whoever verifies the export.
            write(_encode(dict(zip(MEMBERS, (*place, *values), strict=False))) + "\n")
            counts["events"] += 1
    write(_encode({"end": counts}) + "\n")
    return counts


class ExportFile:
    """An export as a source of `verification`. Raises Invalid for a file that is none.

    It is read strictly: a member twice or too many could show a reader what was not verified.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._line = 0
        self._faults: list[str] = []
        self._more_faults = 0
        self._counts = {"checkpoints": 0, "events": 0}
        header = self._read_record() or {}
        if header.get("format") != FORMAT or not isinstance(header.get("issuer"), str):
            raise _unusable("is not an export of the audit log")
        if header.get("version") != VERSION:
            raise _unusable("is an export of another version")
        self.issuer: str = header["issuer"]
        self._record = self._read_record()

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        for record in self._section("checkpoint"):
            number, jws = record["checkpoint"], record.get("jws")
            if type(number) is int and isinstance(jws, str) and len(record) == 2:
                self._counts["checkpoints"] += 1
                yield number, jws
            else:
                self._find_fault("is no checkpoint")

    def events(self) -> Iterator[Row]:
        return self._events(chained=True)

    def unchained(self) -> Iterator[Row]:
        return self._events(chained=False)

    def faults(self) -> Iterator[str]:
        if list(self._section("end")) != [{"end": self._counts}]:
            self._find_fault("is not followed by the end, which counts the lines")
        yield from self._faults
        for _ in range(self._more_faults):
            yield self._faults[-1]

    def _events(self, *, chained: bool) -> Iterator[Row]:
        for record in self._section("event" if chained else "unchained"):
            self._counts["events"] += 1
            chain, position, stored = record["chain"], record.get("position"), record.get("hash")
            try:
                values = _values_of(record) if len(record) == len(MEMBERS) else ()
                yield chain, position, bytes.fromhex(stored) if stored is not None else None, values
            except (KeyError, TypeError, ValueError):
                yield chain, position, None, ()

    def _section(self, kind: str) -> Iterator[dict[str, Any]]:
        """The records of this kind, up to the first of a later one."""
        rank = KINDS.index(kind)
        while self._record is not None:
            found = _kind(self._record)
            if found == kind:
                yield self._record
            elif found is None or KINDS.index(found) < rank:
                self._find_fault("is no record, or not in its place")
            else:
                return
            self._record = self._read_record()

    def _read_record(self) -> dict[str, Any] | None:
        """The next line that is an object; None at the end."""
        while line := self._file.readline(LONGEST_LINE):
            self._line += 1
            try:
                record = decode_json(line.decode("ascii"))
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and line.endswith(b"\n"):
                return record
            if self._line == 1:
                break
            self._find_fault("can't be read")
        return None

    def _find_fault(self, what: str) -> None:
        if len(self._faults) < LISTED:
            self._faults.append(f"Line {self._line} {what}.")
        else:
            self._more_faults += 1


KINDS: Final = ("checkpoint", "event", "unchained", "end")


def _kind(record: dict[str, Any]) -> str | None:
    if "chain" in record:
        chain = record["chain"]
        return "event" if isinstance(chain, str) else "unchained" if chain is None else None
    return "checkpoint" if "checkpoint" in record else "end" if "end" in record else None


def _unusable(what: str) -> Invalid:
    return Invalid([FieldError("the file", what)])
