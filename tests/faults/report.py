"""The table of `docs/reliability.md`, between two marks; what stands above it is written by hand."""

import datetime as dt
import fcntl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.plan import Experiment, Finding

BEGIN: Final = "<!-- faults: begin; `make faults` writes what follows -->"
END: Final = "<!-- faults: end -->"
HEAD: Final = """\
| | what is done here | must hold | figures | result | took | run |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Row:
    number: str
    cells: tuple[str, ...]
    result: str
    seconds: float
    broken: bool = False
    not_run: bool = False

    @classmethod
    def of(
        cls, experiment: Experiment, found: Finding, seconds: float, seed: int, commit: str, not_run: str
    ) -> "Row":
        result = f"not run: {not_run}" if not_run else "**broken**" if found.broken else "holds"
        figures = "; ".join(f"{name}: {value}" for name, value in found.figures.items())
        when = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {commit}, seed {seed}"
        cells = (experiment.does, experiment.holds, figures, result, f"{seconds:.0f} s", when)
        return cls(experiment.number, cells, result, seconds, bool(found.broken), bool(not_run))

    def line(self) -> str:
        return (
            "| "
            + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in (self.number, *self.cells))
            + " |"
        )


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace these rows; the others stay as they were, also when another run writes its own at this moment."""
    with (Path(tempfile.gettempdir()) / "tokenserver-faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(path, rows)


def _write(path: Path, rows: Sequence[Row]) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| E")}
    lines |= {row.number: row.line() for row in rows}
    body = "\n".join(lines[number] for number in sorted(lines))
    path.write_text(f"{before}{BEGIN}\n\n{HEAD}{body}\n\n{END}{after}", encoding="utf-8")
