"""Pictures of numbers: where each line and bar stands, in units of the picture. The templates draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tokenserver.web.language import marked, marked_plural, number, plural, translated

WIDTH: Final = 400
# Of a row: its words above, its bar below.
ROW: Final = 40
MARGIN: Final = 4
# What a bar leaves to the number at its end.
NUMBER: Final = 56
LONGEST_LABEL: Final = 44
# Shorter ones could not be seen.
LEAST: Final = 2.0
ABOUT: Final = marked_plural(
    "{count} bar. It is {label}: {total}.", "{count} bars. The longest is {label}: {total}."
)


@dataclass(frozen=True)
class Bar:
    """`parts`: left end and width of each series in the row."""

    label: str
    values: tuple[int, ...]
    parts: tuple[tuple[float, float], ...]
    y: int

    @property
    def total(self) -> int:
        return sum(self.values)

    @property
    def short_label(self) -> str:
        return self.label if len(self.label) <= LONGEST_LABEL else self.label[: LONGEST_LABEL - 1] + "…"

    @property
    def end(self) -> float:
        return self.parts[-1][0] + self.parts[-1][1]


@dataclass(frozen=True)
class Bars:
    """`title`, `series`: in English, as the catalogue has them."""

    title: str
    series: tuple[str, ...]
    rows: tuple[Bar, ...]
    width: int = WIDTH

    @property
    def height(self) -> int:
        return ROW * len(self.rows)

    @property
    def description(self) -> str:
        """For who can't see it; the table says it all."""
        if not self.rows:
            return translated(marked("Nothing to show."))
        first, count = self.rows[0], len(self.rows)
        return plural(*ABOUT, count).format(count=count, label=first.label, total=number(first.total))


def bars(title: str, series: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Bars:
    """`rows`: a label, and a number for each series."""
    most = max((sum(row[1:]) for row in rows), default=0) or 1
    scale = (WIDTH - NUMBER) / most
    drawn = []
    for index, (label, *values) in enumerate(rows):
        left, parts = 0.0, []
        for value in values:
            parts.append((round(left, 1), round(value * scale, 1)))
            left += value * scale
        drawn.append(Bar(str(label), tuple(values), tuple(parts), index * ROW))
    return Bars(title, tuple(series), tuple(drawn))


@dataclass(frozen=True)
class Span:
    """A key's life: published, and within it the time in which it signed or signs."""

    kid: str
    state: str
    x: float
    width: float
    signs_x: float
    signs_width: float
    y: int


@dataclass(frozen=True)
class Timeline:
    spans: tuple[Span, ...]
    now: float
    begin: datetime
    end: datetime
    width: int = WIDTH

    @property
    def height(self) -> int:
        return ROW * len(self.spans) + MARGIN


def timeline(keys: Sequence[Mapping[str, Any]], now: datetime) -> Timeline:
    """`keys`: with times as datetimes. What has no end yet goes on to the right."""
    times = [key[name] for key in keys for name in ("published_at", "remove_after") if key[name]]
    begin, latest = min([*times, now]), max([*times, now])
    span = max(latest - begin, timedelta(minutes=1))
    end = latest + span / 6

    def x(at: datetime) -> float:
        return round(float((at - begin) / (end - begin)) * WIDTH, 1)

    def drawn(index: int, key: Mapping[str, Any]) -> Span:
        left, right = x(key["published_at"]), x(key["remove_after"] or end)
        signs = x(key["activated_at"]) if key["activated_at"] else right
        signed = x(key["retired_at"] or end) if key["activated_at"] else right
        width, signing = max(right - left, LEAST), max(signed - signs, LEAST) if signs < right else 0.0
        return Span(key["kid"], key["state"], left, width, signs, signing, index * ROW)

    return Timeline(tuple(drawn(i, key) for i, key in enumerate(keys)), x(now), begin, end)
