"""What a tree of processes has used, from /proc: CPU time and memory, the stores apart."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

REDIS: Final = b"redis-server"
SQL: Final = b"postgres"


class Tree(NamedTuple):
    """Process ids of a server's own processes, and of the stores among its descendants."""

    own: tuple[int, ...]
    stores: tuple[int, ...]

    @classmethod
    def of(cls, *roots: int) -> "Tree":
        own, stores = [], []
        for pid in _descendants(roots):
            (stores if is_program(pid, REDIS, SQL) else own).append(pid)
        return cls(tuple(own), tuple(stores))


def is_program(pid: int, *names: bytes) -> bool:
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
    return any(name in program for name in names)


def _descendants(roots: Iterable[int]) -> list[int]:
    """The roots first; what has ended meanwhile is left out."""
    found = list(roots)
    for pid in found:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_ms(pids: Iterable[int]) -> float:
    """User and system time so far, in steps of a clock tick (10 ms)."""
    return sum(sum(_times_ms(pid)[:2]) for pid in pids)


def main_thread_ms(pids: Iterable[int]) -> float:
    """CPU time of their first threads, to the nanosecond: all of it, for stores that work in one. With that of
    their children that have ended: a database's cleaner would take its time back."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
        total += sum(_times_ms(pid)[2:])
    return total


def _times_ms(pid: int) -> list[float]:
    """User and system time, its own and that of its children that have ended; nothing of what has gone itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [int(field) * 1000 / os.sysconf("SC_CLK_TCK") for field in fields[11:15]]


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size: a page that n processes share counts 1/n in each."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
