"""`ring.json`: which keys and MAC secrets there are, and where each is in its life."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast, get_args

from tokenserver.config import SIGNING_ALGS

VERSION: Final = 1
SECRET: Final = "HKDF-SHA256"  # what a MAC secret serves, as a key serves its JWS algorithm
KID: Final = re.compile(r"[A-Za-z0-9_-]{43}")

NewState = Literal["next", "active"]
State = Literal["next", "active", "retired"]
TIMES: Final = ("created_at", "published_at", "activated_at", "retired_at", "remove_after")
# The times that a state must have; it has no others.
HAS: Final = {"next": set(TIMES[:2]), "active": set(TIMES[:3]), "retired": set(TIMES)}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A key or secret. `kid` is made from its content. Times are whole unix seconds."""

    kid: str
    alg: str
    state: State
    created_at: int
    published_at: int
    activated_at: int | None = None
    retired_at: int | None = None
    remove_after: int | None = None

    @property
    def file(self) -> str:
        return file_name(self.alg, self.kid)

    def is_published(self, now: float) -> bool:
        return self.remove_after is None or now < self.remove_after

    def to_json(self) -> dict[str, str | None]:
        """Times as RFC 3339 UTC, or None."""
        times = {name: getattr(self, name) for name in TIMES}
        shown = {name: None if at is None else rfc3339(at) for name, at in times.items()}
        return {"kid": self.kid, "alg": self.alg, "state": self.state, **shown}


Entries = tuple[Entry, ...]


def find_entry(entries: Entries, alg: str, state: State) -> Entry | None:
    return next((entry for entry in entries if (entry.alg, entry.state) == (alg, state)), None)


def algorithms(entries: Entries) -> tuple[str, ...]:
    """The JWS algorithms that have keys."""
    return tuple(alg for alg in SIGNING_ALGS if any(entry.alg == alg for entry in entries))


def file_name(alg: str, kid: str) -> str:
    return f"secret-{kid}.bin" if alg == SECRET else f"{alg}-{kid}.pem"


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def dump(entries: Entries) -> bytes:
    members = [{name: value for name, value in entry.to_json().items() if value} for entry in entries]
    return json.dumps({"version": VERSION, "entries": members}, indent=2).encode() + b"\n"


def parse(text: bytes) -> Entries:
    """ValueError saying what is wrong, for anything that `dump` would not have written."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("entries"), list):
        raise ValueError("has no list of entries")  # noqa: TRY004 - one exception for all bad input
    if document.get("version") != VERSION:
        raise ValueError("was written by another version")
    entries = tuple(_entry(members) for members in document["entries"])
    if len({entry.kid for entry in entries}) != len(entries):
        raise ValueError("names a key twice")
    serving = [(entry.alg, entry.state) for entry in entries if entry.state != "retired"]
    if len(set(serving)) != len(serving):
        raise ValueError("has two active or two next keys for one algorithm")
    return entries


def _entry(members: Any) -> Entry:
    if not isinstance(members, dict) or not all(isinstance(value, str) for value in members.values()):
        raise ValueError("has an entry that is not an object of strings")
    kid, alg, state = (members.get(name, "") for name in ("kid", "alg", "state"))
    # The kid becomes part of a file name.
    if not KID.fullmatch(kid) or alg not in {*SIGNING_ALGS, SECRET} or state not in get_args(State):
        raise ValueError("has an entry with an unusable kid, alg or state")
    if set(members) - {"kid", "alg", "state"} != HAS[state]:
        raise ValueError(f"has a key in state {state} with other times than that state has")
    times = {name: _seconds(members[name]) for name in HAS[state]}
    return Entry(kid=kid, alg=alg, state=cast("State", state), **times)


def _seconds(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("has a time that is not RFC 3339") from None
    if at.tzinfo is None:
        raise ValueError("has a time without a zone")
    return int(at.timestamp())
