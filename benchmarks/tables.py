"""Figures as Markdown tables, and lines for a terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.targets import Verdict


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Numbers stand right."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell_rows(cells: Iterable[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            cell["path"],
            str(cell["connections"]),
            f"{cell['requests_per_s']:,.0f}",
            _ms(cell["p50_ms"]),
            _ms(cell["p99_ms"]),
            f"{cell['cpu_ms']:.3f}",
            ratio(cell),
            f"{cell['refused'] or ''}{' ' + str(cell['failed']) + ' failed' if cell['failed'] else ''}",
        ]
        for cell in cells
    ]


def ratio(cell: dict[str, Any]) -> str:
    """With half of the distance between its samples, where there are several."""
    spread = f" ± {cell['spread'] / 2:.2f}" if cell["samples"] > 1 else ""
    return f"{cell['ratio']:.2f}{spread}"


def _ms(value: float | None) -> str:
    """Nothing where it wasn't kept."""
    return "" if value is None else f"{value:.1f}"


CELL_HEAD = ("path", "connections", "requests/s", "p50 ms", "p99 ms", "CPU ms", "of R", "refused")


def grouped(cells: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By stores and algorithm; paths together, then by connections."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["stores"], cell["alg"]), []).append(cell)
    for group in found.values():
        order = list(dict.fromkeys(cell["path"] for cell in group))
        group.sort(key=lambda cell: (order.index(cell["path"]), cell["connections"]))
    return found


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    rows = [
        [
            each.target.name,
            f"{each.measured:.2f} {each.target.unit}",
            f"{each.target.at_most:g} {each.target.unit}",
            "" if each.target.stretch is None else f"{each.target.stretch:g}",
            "holds" if each.holds else "**missed**",
        ]
        for each in verdicts
    ]
    return table(("target", "measured", "at most", "stretch", ""), rows)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)
