"""Programs that really run with another clock, by Debian's libfaketime."""

from pathlib import Path

SHARED = Path("/dev/shm")  # nosec B108 - where the C library keeps named semaphores and memory


def library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def faked(seconds: int) -> dict[str, str]:
    """The environment of a program whose clock is off by so much. Raises FileNotFoundError without libfaketime.

    The command `faketime` isn't asked: it would get the signals in place of the program.
    """
    found = library()
    if found is None:
        raise FileNotFoundError("libfaketime is not installed")
    forget_the_dead()
    return {"LD_PRELOAD": str(found), "FAKETIME": f"{seconds:+d}"}


def forget_the_dead() -> None:
    """libfaketime names what its processes share by the number of the first, leaves it behind when that is killed,
    and ends a later process that gets the same number."""
    for each in (*SHARED.glob("faketime_shm_*"), *SHARED.glob("sem.faketime_sem_*")):
        if not Path("/proc", each.name.rpartition("_")[2]).exists():
            each.unlink(missing_ok=True)
