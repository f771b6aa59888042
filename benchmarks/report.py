"""Writes figures into `docs/performance.md`, between the markers of a section, and plots beside it.

A run of one kind (`paths`, `growth`, `peers`) is kept as JSON, from which its section can be written again.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks import tables, targets
from benchmarks.about import ROOT
from benchmarks.plots import Bar, bars

DOCUMENT: Final = ROOT / "docs" / "performance.md"
FOLDER: Final = ROOT / "docs" / "performance"
OURS: Final = "tokenserver"


def write(kind: str, results: dict[str, Any], document: Path = DOCUMENT, folder: Path = FOLDER) -> None:
    """`folder`: for the plots and the JSON, beside the document."""
    folder.mkdir(exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    body, plot = SECTIONS[kind](results)
    (folder / f"{kind}.svg").write_text(plot, "utf-8")
    about = conditions(results["about"])
    text = f"{about}\n\n![{kind}](performance/{kind}.svg)\n\n{body}"
    document.write_text(replaced(document.read_text("utf-8"), kind, text), "utf-8")


def read(kind: str, folder: Path = FOLDER) -> dict[str, Any]:
    return dict(json.loads((folder / f"{kind}.json").read_text("utf-8")))


def replaced(document: str, section: str, text: str) -> str:
    """With this text between the section's markers. Raises ValueError where they are missing."""
    begin, end = f"<!-- measured: {section} -->", f"<!-- end: {section} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    found, count = pattern.subn(lambda _: f"{begin}\n{text.strip()}\n{end}", document)
    if count != 1:
        raise ValueError(f"the markers of {section} are there {count} times")
    return found


def conditions(about: dict[str, Any]) -> str:
    extra = "with" if about["multi_buffer"] else "without"
    return (
        f"{about['date']}, commit {about['commit']}; {about['processor']}, {about['cores']} cores, Python "
        f"{about['python']}, {extra} the extra `multi-buffer`; {about['workers']} workers, "
        f"medians of {about['rounds']} samples of {about['seconds']:g} s. **R = {about['r_ms']:.3f} ms.**"
    )


# The sections: Markdown, and a plot


def paths(results: dict[str, Any]) -> tuple[str, str]:
    parts = ["### Targets\n", tables.verdict_table(targets.of_paths(results))]
    for (stores, alg), cells in tables.grouped(results["cells"]).items():
        parts += [f"\n### {STORES[stores]}, {alg}\n", tables.table(tables.CELL_HEAD, tables.cell_rows(cells))]
    verifier = [
        [
            each["alg"],
            *(f"{each[name]:.0f} µs" for name in ("cold_us", "warm_us", "again_us")),
            f"{each['ratio']:.2f}",
        ]
        for each in results["verifier"]
    ]
    if verifier:
        head = ("algorithm", "first token", "each further", "the same again", "each further, of R")
        parts += ["\n### The verifier alone\n", tables.table(head, verifier)]
    starts = {each["stores"]: each for each in results["starts"]}
    memory = [
        [
            STORES[each["stores"]],
            *(f"{each[name]:.0f}" for name in ("at_rest_mb", "after_mb", "after_with_stores_mb")),
            *(_seconds(starts[each["stores"]][name]) for name in ("first_s", "second_s")),
        ]
        for each in results["memory"]
    ]
    if memory:
        head = ("stores", "MB at rest", "MB after load", "with stores", "first start s", "second start s")
        parts += ["\n### Memory (PSS) and start\n", tables.table(head, memory)]
    if results["sign_ins"]:
        parts += ["\n### Refused sign-ins\n", _sign_ins(results["sign_ins"])]
    title = "CPU per request, as a multiple of R: embedded stores, 32 connections"
    plot = bars(title, _path_bars(results["cells"]), marks=[(1, "R")])
    return "\n".join(parts), plot


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _path_bars(cells: Iterable[dict[str, Any]]) -> list[Bar]:
    shown = [cell for cell in cells if cell["stores"] == "embedded" and cell["connections"] == 32]
    order = list(dict.fromkeys(cell["path"] for cell in shown))
    shown.sort(key=lambda cell: order.index(cell["path"]))
    return [Bar(cell["path"], cell["alg"], cell["ratio"]) for cell in shown]


def _sign_ins(found: dict[str, Any]) -> str:
    rows = [[kind, f"{each['median_ms']:.1f}", f"{each['p']:.2f}"] for kind, each in found["kinds"].items()]
    table = tables.table(("account", "median ms", "p against a wrong password"), rows)
    return f"{table}\n\nThe medians are {found['apart_percent']:.1f} % apart."


def growth(results: dict[str, Any]) -> tuple[str, str]:
    rows = [
        [
            f"{cell['path']}, {cell['subject']}",
            f"{cell['size']:,}",
            f"{cell['cpu_ms']:.3f}",
            tables.ratio(cell),
            f"{cell['p50_ms']:.1f}",
            f"{cell['p99_ms']:.1f}",
        ]
        for cell in _by_path(results["cells"])
    ]
    parts = [tables.verdict_table(targets.of_growth(results))]
    parts += ["", tables.table(("path", "how many", "CPU ms", "of R", "p50 ms", "p99 ms"), rows)]
    sql = max(results["sql_bytes"].items(), key=lambda item: int(item[0]))[1]
    redis = max(results["family_bytes"].items(), key=lambda item: int(item[0]))[1]
    parts.append(
        f"\nBytes with 10⁶ of them: a live family in Redis {redis:.0f}; in PostgreSQL, with indexes, a session "
        f"with its family {sql['session']:.0f}, a user with one role {sql['user']:.0f}."
    )
    shown = [cell for cell in _by_path(results["cells"]) if cell["path"] in GROWN]
    data = [Bar(cell["path"], f"{cell['size']:,} {cell['subject']}", cell["ratio"]) for cell in shown]
    return "\n".join(parts), bars(
        "CPU per request, as a multiple of R, by how much there is", data, marks=[(1, "R")]
    )


GROWN: Final = ("refresh", "refresh, each another family", "/users/me/sessions", "client_credentials")


def _by_path(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(cells, key=lambda cell: (cell["subject"], cell["path"], cell["size"]))


def peers(results: dict[str, Any]) -> tuple[str, str]:
    servers = list(dict.fromkeys(cell["server"] for cell in results["cells"]))
    names = list(dict.fromkeys(cell["path"] for cell in results["cells"]))
    found = {(cell["server"], cell["path"]): cell for cell in results["cells"]}
    rows = [
        [
            server,
            *(f"{found[server, name]['cpu_ms']:.3f} = {found[server, name]['ratio']:.2f} R" for name in names),
            f"{results['memory'][server]:.0f}",
        ]
        for server in servers
    ]
    seen = [
        [
            server,
            *(_seen(found[server, name]) for name in names),
        ]
        for server in servers
    ]
    parts = [tables.verdict_table(targets.of_peers(results)), "", "CPU ms per request, and memory:", ""]
    parts += [tables.table(("server", *names, "MB PSS"), rows), "", "Requests per second; p99 in ms:", ""]
    parts.append(tables.table(("server", *names), seen))
    data = [Bar(name, server, found[server, name]["ratio"]) for name in names for server in servers]
    return "\n".join(parts), bars("CPU per request, as a multiple of R (logarithmic)", data, marks=[(1, "R")])


def _seen(cell: dict[str, Any]) -> str:
    """Requests per second, and p99 where it was kept."""
    p99 = "" if cell["p99_ms"] is None else f"; {cell['p99_ms']:.0f}"
    return f"{cell['requests_per_s']:,.0f}{p99}"


STORES: Final = {"embedded": "Embedded stores", "postgresql": "PostgreSQL and Redis"}
SECTIONS: Final[dict[str, Callable[[dict[str, Any]], tuple[str, str]]]] = {
    "paths": paths,
    "growth": growth,
    "peers": peers,
}
