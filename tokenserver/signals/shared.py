"""A folder in which the processes of a node keep their metrics, each in files of its own that all can read.

They are prometheus_client's (its multiprocess mode): mapped into memory, so that a count costs no system call and
outlives the process that made it. A folder is empty when its first process comes; who comes later goes on with the
files of one that died, so that sums never fall and files never pile up.
"""

import contextlib
import fcntl
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenserver.signals.instruments import REGISTRY

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "tokenserver-metrics-"
KEEPS: Final = re.compile(r"(counter|histogram)_([0-9]+)\.db")
LIVES: Final = re.compile(r"gauge_live[a-z]+_([0-9]+)\.db")
USED: Final = struct.Struct("i")
LEAST_BYTES: Final = 64 * 1024
# More than a histogram with the longest names takes.
MARGIN_BYTES: Final = 16 * 1024
KINDS: Final = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin")
TRIES: Final = 10


class _Mine:
    """Of this process. Locks are held for its life: the folder isn't emptied while anybody is in it."""

    def __init__(self) -> None:
        self.locks: list[int] = []
        self.folder: Path | None = None


_mine = _Mine()


def folder() -> Path | None:
    """That this process shares."""
    return _mine.folder


def places() -> list[Path]:
    """In memory, where there is such a place: a busy disk would hold up whoever counts."""
    return [Path("/dev/shm"), Path(tempfile.gettempdir())]  # noqa: S108 - for a folder of random name, mode 0700


def make() -> Path:
    """A private folder for one server. Removes those of servers that ended without removing theirs."""
    parent = next(each for each in places() if os.access(each, os.W_OK | os.X_OK))
    for old in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid == os.getuid() and _is_left(old):
                shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    hold(folder)
    return folder


def hold(folder: Path) -> None:
    """As long as this process lives, nobody empties it. Whoever comes first does."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in folder.glob("*.db"):
            file.unlink()
    fcntl.flock(lock, fcntl.LOCK_SH)
    _mine.locks.append(lock)


def _is_left(folder: Path) -> bool:
    with (folder / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def enter(folder: Path | None) -> None:
    """From here on this process counts in the folder; by itself, without one. OSError when it can't be used."""
    from prometheus_client import values

    while _mine.locks:
        os.close(_mine.locks.pop())
    _mine.folder = folder
    if folder is None:
        values.ValueClass = values.MutexValue
        REGISTRY.begin(lambda: None)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hold(folder)
    _inherit(folder)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    REGISTRY.begin(lambda: _reserve(folder))


def _reserve(folder: Path) -> None:
    """Room on the disk for what is written next: a mapped file without it would end the process."""
    for kind in KINDS:
        file = folder / f"{kind}_{os.getpid()}.db"
        if not file.exists():
            # Whoever reads never meets one without its head.
            fresh = file.with_suffix(".new")
            _fill(fresh, LEAST_BYTES)
            fresh.rename(file)
        size = file.stat().st_size
        with file.open("rb") as opened:
            (used,) = USED.unpack(opened.read(USED.size))
        if used + MARGIN_BYTES > size:
            _fill(file, size * 2)


def _fill(file: Path, size: int) -> None:
    with file.open("ab") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)


def _inherit(folder: Path) -> None:
    """The counts of one process that died go on with this one."""
    dead = {pid for kind, pid in map(_parts, folder.glob("*.db")) if kind and not is_alive(pid)}
    for pid in sorted(dead):
        for kind in ("counter", "histogram"):
            mine = folder / f"{kind}_{os.getpid()}.db"
            if not mine.exists():  # of an earlier process of this number
                with contextlib.suppress(FileNotFoundError):  # another one was faster
                    (folder / f"{kind}_{pid}.db").rename(mine)
        return


def _parts(file: Path) -> tuple[str, int]:
    found = KEEPS.fullmatch(file.name)
    return (found[1], int(found[2])) if found else ("", 0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def collect(folder: Path) -> "Iterator[Metric]":
    """The sums over all processes; of the others, as of half a second ago (`tokenserver.vitals`)."""
    REGISTRY.settle()
    from prometheus_client.multiprocess import MultiProcessCollector

    for file in folder.glob("gauge_live*.db"):
        found = LIVES.fullmatch(file.name)
        if found and not is_alive(int(found[1])):
            file.unlink(missing_ok=True)
    for attempt in range(TRIES):
        try:
            # Whoever inherits renames files while they are read.
            yield from MultiProcessCollector(None, str(folder)).collect()  # type: ignore[no-untyped-call]
        except FileNotFoundError:
            if attempt == TRIES - 1:
                raise
        else:
            return
