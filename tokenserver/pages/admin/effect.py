"""What a dry run found, in sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def sentences(effect: Mapping[str, Any], sessions: str) -> list[str]:
    """`effect`: the answer of a dry run. `sessions`: what becomes of live sessions, such as "end"."""
    named, count = effect["users"], effect["user_count"]
    about = "At least " if count > len(named) else ""  # the others are counted, and not looked at one by one
    found = [
        f"{about}{_counted(number, 'person', 'people')} {_verb(number, word)} {permission}"
        for member, word in (("loses", "lose"), ("gains", "gain"))
        for permission, number in _tally(named, member)
    ]
    found += [
        f"The client {client['client_id']} {_verb(1, word)} {', '.join(client[member])}"
        for client in effect["clients"]
        for member, word in (("loses", "lose"), ("gains", "gain"))
        if client[member]
    ]
    if effect["session_count"]:
        number = effect["session_count"]
        found.append(f"{_counted(number, 'live session', 'live sessions')} {_verb(number, sessions)}")
    return found


def _tally(subjects: Sequence[Mapping[str, Any]], member: str) -> Iterable[tuple[str, int]]:
    """Most first."""
    tally = Counter(permission for subject in subjects for permission in subject[member])
    return sorted(tally.items(), key=lambda each: (-each[1], each[0]))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _verb(number: int, word: str) -> str:
    """ "are touched" and the like have their own singular."""
    if number != 1:
        return word
    return f"is{word.removeprefix('are')}" if word.startswith("are ") else f"{word}s"
