"""Bar charts as SVG, written by hand: no library, readable on light and dark pages."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 760
LEFT: Final = 290
RIGHT: Final = 80
TOP: Final = 44
BAR: Final = 16
GAP: Final = 6
SPACE: Final = 12
# Colours that can be told apart by people who see few, on white and on black: after Okabe and Ito.
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #222 } .title { font-weight: 600 } .mark { font-size: 11px }
  line { stroke: #888; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) { text { fill: #ddd } line { stroke: #999 } }
"""


class Bar(NamedTuple):
    """`label`: of a group, where it is the first of it; bars of the same `series` have one colour."""

    label: str
    series: str
    value: float


def bars(title: str, data: Sequence[Bar], *, marks: Sequence[tuple[float, str]] = (), unit: str = "") -> str:
    """From top to bottom. The scale is logarithmic where the largest is more than 30 times the smallest.

    `marks`: vertical lines, with what stands above them.
    """
    series = list(dict.fromkeys(bar.series for bar in data))
    scale = _scale([bar.value for bar in data] + [value for value, _ in marks])
    y, parts = float(TOP), []
    for number, bar in enumerate(data):
        is_first = number == 0 or data[number - 1].label != bar.label
        if is_first and number:
            y += SPACE
        if is_first:
            parts.append(_text(LEFT - 8, y + 12, bar.label, anchor="end"))
        colour = COLOURS[series.index(bar.series) % len(COLOURS)]
        width = max(scale(bar.value), 1)
        tip = f"<title>{escape(f'{bar.label}, {bar.series}: {_number(bar.value)} {unit}')}</title>"
        parts.append(
            f'<rect x="{LEFT}" y="{y:.0f}" width="{width:.1f}" height="{BAR}" fill="{colour}">{tip}</rect>'
        )
        parts.append(_text(LEFT + width + 5, y + 12, f"{_number(bar.value)} {unit}".strip()))
        y += BAR + GAP
    for value, words in marks:
        x = LEFT + scale(value)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{y:.0f}"/>')
        parts.append(_text(x, TOP - 8, words, anchor="middle", kind="mark"))
    legend, y = _legend(series, y + 8)
    words = _text(8, 18, title, kind="title")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img">'
    return "\n".join(
        [head, f"<title>{escape(title)}</title><style>{STYLE}</style>", words, *parts, *legend, "</svg>\n"]
    )


def _scale(values: Sequence[float]):  # noqa: ANN202 - a function
    room = WIDTH - LEFT - RIGHT
    largest, smallest = max(values), min(value for value in values if value > 0)
    if largest <= 30 * smallest:
        return lambda value: room * value / largest
    # The smallest gets a bar too.
    floor = math.log10(smallest) - 0.3
    return lambda value: room * max(math.log10(value) - floor, 0) / (math.log10(largest) - floor)


def _legend(series: Sequence[str], y: float) -> tuple[list[str], float]:
    """Nothing for one."""
    if len(series) < 2:
        return [], y
    parts = []
    for number, name in enumerate(series):
        parts.append(f'<rect x="8" y="{y:.0f}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(_text(26, y + 11, name))
        y += 18
    return parts, y + 4


def _text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.0f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
