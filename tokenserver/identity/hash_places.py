"""How many password hashes are computed at once over all processes of a machine, or of a container: never one for
each core, so that refreshes find a core that no hash is on.
"""

import fcntl
import logging
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 2.0
BETWEEN_SECONDS: Final = 0.002


class HashPlaces:
    """`count` places for all processes that share `folder`; None: nothing is shared.

    A place is a lock on a file (flock(2)), so it is free when its process ends, however it ends. It is a courtesy
    to what needs no hash, and no bound that safety rests on: after PATIENCE_SECONDS a hash is computed without one,
    so that a process that was stopped while it held a place keeps nobody out.
    """

    def __init__(self, folder: Path | None, count: int) -> None:
        self._door = [folder / "door"] if folder else []
        self._places = [folder / f"place-{number}" for number in range(count)] if folder else []
        # Of this process no more threads look for a place than there are places: looking takes the interpreter's
        # lock, five hundred times a second.
        self._turns = threading.Semaphore(count)

    @contextmanager
    def one(self) -> Iterator[None]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with ExitStack() as held:
            if self._places and self._turns.acquire(timeout=PATIENCE_SECONDS):
                held.callback(self._turns.release)
            # Of all processes one waits for a place, and the others before the door. Who gives a place back and
            # wants another one comes after who waited meanwhile.
            with _locked(self._door, deadline):
                held.enter_context(_locked(self._places, deadline))
            yield


@contextmanager
def _locked(files: Sequence[Path], deadline: float) -> Iterator[None]:
    """The first of them that is free; none past the deadline."""
    descriptor = _lock_one(files)
    while descriptor is None and files and time.monotonic() < deadline:
        time.sleep(BETWEEN_SECONDS)
        descriptor = _lock_one(files)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_one(files: Sequence[Path]) -> int | None:
    for file in files:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:  # the folder was cleared away
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def shared_folder() -> Path | None:
    """One for all processes of this user, which nobody else can lock files in. None: there is no place for it."""
    try:
        folder = Path(tempfile.gettempdir()) / f"tokenserver-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        _log.warning("password hashes may take all cores: no folder for temporary files: %s", error.strerror)
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        _log.warning("password hashes may take all cores: %s belongs to somebody else", folder)
        return None
    return folder
