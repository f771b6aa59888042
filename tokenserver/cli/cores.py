"""A core of its own for each worker.

One thread of a process runs Python at a time, whichever core it is on. Where the kernel spreads them, each handover
of the interpreter lock moves what the process works with from one core's cache to another's, and who is woken too
early finds the lock taken (docs/performance-profile.md).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")


def core_of(worker: int, workers: int) -> int | None:
    """The core for worker number `worker`, from 0; None where the kernel had better decide: there are more or fewer
    cores than workers, or a quota bounds them all together.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) != workers or workers == 1 or any(_quotas()):
        return None
    return cores[worker]


def _quotas() -> Iterator[bool]:
    """Whether this cgroup, as a container sees its own, has less than whole cores (cgroups(7), version 2 and 1)."""
    for file, unbounded in (("cpu.max", "max"), ("cpu/cpu.cfs_quota_us", "-1")):
        with suppress(OSError):
            yield not (CGROUP / file).read_text().startswith(unbounded)


def put_on(core: int, process: int) -> None:
    """And all threads that this process is going to start: they run where the one that starts them does."""
    with suppress(OSError):  # it has ended, or the core was taken away meanwhile
        os.sched_setaffinity(process, {core})
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
