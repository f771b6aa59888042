"""What a dry run found, in sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from tokenserver.web.language import marked, marked_plural, number, plural, translated


class Sessions(StrEnum):
    """What becomes of live sessions."""

    END = "end"
    TOUCHED = "touched"


# What somebody loses or gains; whether there are more people than were looked at one by one.
PEOPLE: Final = {
    ("loses", False): marked_plural("{count} person loses {permission}.", "{count} people lose {permission}."),
    ("gains", False): marked_plural("{count} person gains {permission}.", "{count} people gain {permission}."),
    ("loses", True): marked_plural(
        "At least {count} person loses {permission}.", "At least {count} people lose {permission}."
    ),
    ("gains", True): marked_plural(
        "At least {count} person gains {permission}.", "At least {count} people gain {permission}."
    ),
}
CLIENTS: Final = {
    "loses": marked("The client {client} loses {permissions}."),
    "gains": marked("The client {client} gains {permissions}."),
}
SESSIONS: Final = {
    Sessions.END: marked_plural("{count} live session ends.", "{count} live sessions end."),
    Sessions.TOUCHED: marked_plural("{count} live session is touched.", "{count} live sessions are touched."),
}


def sentences(effect: Mapping[str, Any], sessions: Sessions) -> list[str]:
    """`effect`: the answer of a dry run. In the language of the request."""
    named, live = effect["users"], effect["session_count"]
    is_least = effect["user_count"] > len(named)
    found = [
        plural(*PEOPLE[member, is_least], people).format(count=number(people), permission=permission)
        for member in ("loses", "gains")
        for permission, people in _tally(named, member)
    ]
    found += [
        translated(CLIENTS[member]).format(client=client["client_id"], permissions=", ".join(client[member]))
        for client in effect["clients"]
        for member in ("loses", "gains")
        if client[member]
    ]
    if live:
        found.append(plural(*SESSIONS[sessions], live).format(count=number(live)))
    return found


def _tally(subjects: Sequence[Mapping[str, Any]], member: str) -> Iterable[tuple[str, int]]:
    """Most first."""
    tally = Counter(permission for subject in subjects for permission in subject[member])
    return sorted(tally.items(), key=lambda each: (-each[1], each[0]))
