"""The language that a person reads, as the request asks for it, and the words in it (GNU gettext).

English is what the sources are written in. The catalogues stand in `tokenserver/locale`; `make catalogue` keeps
them in step. What programs read, as REST and OAuth errors, stays English.
"""

import functools
import gettext
from datetime import datetime
from importlib.resources import files
from typing import Final

from flask import has_request_context, request

from tokenserver.web.request_context import current

SOURCE: Final = "en"
LANGUAGES: Final = (SOURCE, "de")


def marked(text: str) -> str:
    """As it is; `make catalogue` finds it, and who shows it translates it."""
    return text


def marked_plural(one: str, many: str) -> tuple[str, str]:
    """The same for what `plural` takes."""
    return one, many


MONTHS: Final = (
    marked("January"),
    marked("February"),
    marked("March"),
    marked("April"),
    marked("May"),
    marked("June"),
    marked("July"),
    marked("August"),
    marked("September"),
    marked("October"),
    marked("November"),
    marked("December"),
)


def current_language() -> str:
    """Of this request; English where there is none."""
    context = current()
    if context.language is None:
        if not has_request_context():
            return SOURCE
        context.language = _asked_by_header()
        prefer(request.args.get("ui_locales"))
    return context.language


def prefer(ui_locales: object) -> None:
    """For the rest of this request, over what the browser asks for: the first of these that is spoken here, if any
    is (OIDC Core section 3.1.2.1: tags of RFC 5646 with spaces between them)."""
    given = ui_locales.split() if isinstance(ui_locales, str) else ()
    wanted = next((known for tag in given if (known := spoken(tag))), None)
    if wanted:
        current().language = wanted


def spoken(tag: object) -> str | None:
    """The language here for a tag such as "de-AT" (RFC 4647 section 3.4), or None."""
    primary = str(tag).partition("-")[0].lower()
    return primary if primary in LANGUAGES else None


def _asked_by_header() -> str:
    """RFC 9110 section 12.5.4."""
    return next((known for tag, weight in request.accept_languages if weight and (known := spoken(tag))), SOURCE)


def translated(text: str, language: str | None = None) -> str:
    """`language`: that of the request when not given. English where the catalogue doesn't have it."""
    return _catalogue(language or current_language()).gettext(text) if text else text


def plural(one: str, many: str, count: int) -> str:
    return _catalogue(current_language()).ngettext(one, many, count)


def is_translated(text: str) -> bool:
    """Whether it is shown in the language of the request."""
    return current_language() == SOURCE or translated(text) != text


def day(moment: datetime) -> str:
    """ "27 November 2026"."""
    pattern = translated(marked("{day} {month} {year}"))
    return pattern.format(day=moment.day, month=translated(MONTHS[moment.month - 1]), year=moment.year)


def minute(moment: datetime) -> str:
    """ "27 November 2026, 14:05 UTC". `moment`: in UTC."""
    return translated(marked("{day}, {time} UTC")).format(day=day(moment), time=f"{moment:%H:%M}")


def instant(moment: datetime, *, seconds: bool = False) -> str:
    """ "2026-11-27 14:05", or with `seconds` "2026-11-27 14:05:09"."""
    pattern = translated(marked("{year}-{month}-{day} {time}"))
    time = f"{moment:%H:%M:%S}" if seconds else f"{moment:%H:%M}"
    return pattern.format(year=moment.year, month=f"{moment:%m}", day=f"{moment:%d}", time=time)


def number(value: int) -> str:
    """ "1,234"."""
    return f"{value:,}".replace(",", translated(marked("1,234"))[1])


@functools.cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == SOURCE:
        return gettext.NullTranslations()
    path = files("tokenserver").joinpath("locale", language, "LC_MESSAGES", "tokenserver.mo")
    with path.open("rb") as file:
        return gettext.GNUTranslations(file)
