"""What a process measures of itself once a second: processor time, memory, open files, stores that it gave up."""

import os
import resource
import threading
import time
from pathlib import Path
from typing import Final

from tokenserver.rooms import Rooms
from tokenserver.signals import metrics
from tokenserver.signals.instruments import REGISTRY

SECONDS: Final = 1.0
# So often within that, what was counted is added up for the other processes of the node to read.
SETTLINGS: Final = 2
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
STATM: Final = Path("/proc/self/statm")
DESCRIPTORS: Final = Path("/proc/self/fd")


def watch(rooms: Rooms) -> None:
    """From now on, in a thread."""
    started_at, never = time.time(), threading.Event()

    def repeat() -> None:
        used = 0.0
        while True:
            used = sample(rooms, started_at, used)
            for _ in range(SETTLINGS):
                REGISTRY.settle()
                never.wait(SECONDS / SETTLINGS)

    threading.Thread(target=repeat, name="vitals", daemon=True).start()


def sample(rooms: Rooms, started_at: float, used_before: float) -> float:
    """Returns the processor time that this process has used so far (s)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    metrics.cpu_seconds.add(used - used_before)
    metrics.workers.set(1)
    metrics.started_at.set(started_at)
    if STATM.exists():  # Linux
        metrics.resident_bytes.set(int(STATM.read_text().split()[1]) * PAGE)
        metrics.open_files.set(len(os.listdir(DESCRIPTORS)))  # noqa: PTH208 - names alone
    gate = rooms.database.gate
    metrics.circuits_open.set(gate is not None and gate.is_closed, "sql")
    metrics.circuits_open.set(rooms.store.is_given_up, "redis")
    return used
