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
    """User and system time so far, in steps of a clock tick (10 ms), with that of children which have ended: a
    database's cleaner that ends would take its time back."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def main_thread_ms(pids: Iterable[int]) -> float:
    """CPU time of their first threads, to the nanosecond: all of it, for stores that work in one."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e6


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size: a page that n processes share counts 1/n in each."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024
