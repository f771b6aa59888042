"""What people say of themselves, by the names of OpenID Connect Core section 5.1, and what each may be."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from tokenserver.errors import FieldError

MAX_TEXT: Final = 200
MAX_URL: Final = 2000
MAX_BLOCK: Final = 1000
EARLIEST_YEAR: Final = 1850
# RFC 3986 section 2: all that a URI may be made of.
URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
DATE: Final = re.compile(r"([0-9]{4})(?:-([0-9]{2}-[0-9]{2}))?")
# E.164, as RFC 3966 writes it and OpenID Connect recommends it.
PHONE_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")
# RFC 5646 section 2.1: langtag.
LANGUAGE_TAG: Final = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(?:-[a-wyz0-9](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?",
    re.IGNORECASE,
)
MAX_LANGUAGE_TAG: Final = 35  # RFC 5646 section 4.4.1
# Section 5.1.1; those that may have several lines, first.
ADDRESS: Final = ("formatted", "street_address", "locality", "region", "postal_code", "country")
BLOCKS: Final = frozenset({"formatted", "street_address"})


def faults(claims: Mapping[str, Any]) -> list[FieldError]:
    """`claims`: by name; None: to be forgotten."""
    return [error for name, value in claims.items() if value is not None for error in _faults(name, value)]


def _faults(name: str, value: Any) -> Iterator[FieldError]:
    if name not in KEPT:
        yield FieldError(name, "Not a claim that can be kept.")
    elif name == "address":
        yield from _address_faults(value)
    elif (fault := _blank(value) or TEXTS[name](value)) is not None:
        yield FieldError(name, fault)


def _address_faults(value: Any) -> Iterator[FieldError]:
    if not isinstance(value, dict) or not value:
        yield FieldError("address", "An object with one or more of " + ", ".join(ADDRESS) + ".")
        return
    for member, part in value.items():
        if member not in ADDRESS:
            yield FieldError(f"address.{member}", "Not a part of an address.")
            continue
        fault = _blank(part) or (_block(part) if member in BLOCKS else _line(part))
        if fault is not None:
            yield FieldError(f"address.{member}", fault)


def _blank(value: Any) -> str | None:
    if not isinstance(value, str):
        return "A string."
    # Clients must not have to tell a claim from its absence.
    return 'Not blank, and not "null"; null removes it.' if not value.strip() or value == "null" else None


def _line(value: str) -> str | None:
    is_fine = len(value) <= MAX_TEXT and value.isprintable()
    return None if is_fine else f"One line of printable characters, at most {MAX_TEXT}."


def _block(value: str) -> str | None:
    lines = value.replace("\r\n", "\n").split("\n")
    is_fine = len(value) <= MAX_BLOCK and all(line.isprintable() for line in lines)
    return None if is_fine else f"Lines of printable characters, at most {MAX_BLOCK} characters."


def _url(value: str) -> str | None:
    try:
        parts = urlsplit(value) if len(value) <= MAX_URL and URL.fullmatch(value) else None
        is_fine = parts is not None and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_fine = False
    return None if is_fine else "A URL of https or http, without user information."


def _birthdate(value: str) -> str | None:
    match = DATE.fullmatch(value)
    if match is None:
        return BIRTHDATE
    year, day = match.groups()
    # Section 5.1: the year 0000 stands for one that is not told. 2000 had every day of a year.
    is_told = year != "0000"
    try:
        moment = date.fromisoformat(f"{year if is_told else '2000'}-{day or '01-01'}")
    except ValueError:
        return BIRTHDATE
    plausible = moment.year >= EARLIEST_YEAR and moment <= date.today()  # noqa: DTZ011 - any calendar will do
    return None if (plausible if is_told else day is not None) else BIRTHDATE


BIRTHDATE: Final = f"YYYY-MM-DD, 0000-MM-DD or YYYY, from {EARLIEST_YEAR} to today."


def _zoneinfo(value: str) -> str | None:
    return None if value in _time_zones() else "A time zone of the IANA database, such as Europe/Berlin."


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _locale(value: str) -> str | None:
    is_fine = len(value) <= MAX_LANGUAGE_TAG and LANGUAGE_TAG.fullmatch(value)
    return None if is_fine else "A language tag (BCP 47), such as de-CH."


def _phone_number(value: str) -> str | None:
    return None if PHONE_NUMBER.fullmatch(value) else "E.164: a plus sign and 7 to 15 digits, without spaces."


TEXTS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "given_name": _line,
    "family_name": _line,
    "middle_name": _line,
    "nickname": _line,
    "profile": _url,
    "picture": _url,
    "website": _url,
    "gender": _line,
    "birthdate": _birthdate,
    "zoneinfo": _zoneinfo,
    "locale": _locale,
    "phone_number": _phone_number,
}
KEPT: Final = (*TEXTS, "address")
