"""Who writes to an SQLite file comes in the order of asking, and nobody waits for ever."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import wait_until
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.sql import Database
from tokenserver.storage.write_queue import NEXT, WRITER, WriteQueue

LONG = 60


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "database"


class Writer:
    """A thread that has its turn until it is told to `end`."""

    def __init__(self, queue: WriteQueue, name: str, order: list[str], seconds: float = LONG) -> None:
        self.has_it, self._end = threading.Event(), threading.Event()
        self.fault: StoreUnavailable | None = None

        def write() -> None:
            try:
                with queue.turn(seconds):
                    order.append(name)
                    self.has_it.set()
                    self._end.wait(LONG)
            except StoreUnavailable as error:
                self.fault = error

        self._thread = threading.Thread(target=write)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join(LONG)


def test_threads_come_in_the_order_of_asking(file: Path):
    queue, order = WriteQueue(file), []
    writers = [Writer(queue, "0", order)]
    writers[0].has_it.wait(LONG)
    for number in range(1, 6):
        writers.append(Writer(queue, str(number), order))
        wait_until(lambda expected=number: len(queue._threads._waiting) == expected)
    for writer in writers:
        writer.end()
    assert "".join(order) == "012345"


def test_who_gives_up_leaves_nothing_behind(file: Path):
    """Neither the thread that waited before the others of its process, nor one behind it."""
    first, second, order = WriteQueue(file), WriteQueue(file), []
    holder = Writer(first, "holder", order)
    holder.has_it.wait(LONG)
    hasty = [Writer(second, "hasty", order, seconds=0.1) for _ in range(2)]
    for each in hasty:
        each.end()
        assert each.fault
    patient = Writer(second, "patient", order)
    holder.end()
    assert patient.has_it.wait(LONG)
    patient.end()
    with first.turn(LONG), pytest.raises(StoreUnavailable), second.turn(0.1):
        pass
    # It was given to nobody when it came, and somebody else has it now.
    with first.turn(LONG):
        pass
    assert order == ["holder", "patient"]


def test_who_had_a_turn_is_not_faster_than_another_process_that_waits(file: Path):
    """That one holds what everybody has to have first, until its turn has come."""
    order: list[str] = []
    holder = Writer(WriteQueue(file), "holder", order)
    assert holder.has_it.wait(LONG)
    waiting = Writer(WriteQueue(file), "waiting", order)
    with file.with_name(file.name + NEXT).open() as door:

        def is_held() -> bool:
            try:
                fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(door, fcntl.LOCK_UN)
            return False

        wait_until(is_held)
        holder.end()
        assert waiting.has_it.wait(LONG)
        assert not is_held()
    waiting.end()
    assert order == ["holder", "waiting"]


HOLDER = """
import sys, time
from pathlib import Path
from tokenserver.storage.write_queue import WriteQueue
with WriteQueue(Path(sys.argv[1])).turn(60):
    print("here", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_is_waited_for_no_longer(file: Path):
    with started(HOLDER, file) as process:
        queue = WriteQueue(file)
        with pytest.raises(StoreUnavailable), queue.turn(0.1):
            pass
        writer = Writer(queue, "", [])
        process.kill()
        assert writer.has_it.wait(LONG)
        writer.end()


CROWD = """
import sys, threading, time
import sqlalchemy as sa
from tokenserver.storage.sql import Database
database = Database(sa.create_engine(f"sqlite:///{sys.argv[1]}"))

def add(tx):
    tx.execute(sa.text("UPDATE counters SET value = value + 1"))
    time.sleep(0.02)

def work():
    while True:
        database.write(add)

for _ in range(4):
    threading.Thread(target=work).start()
print("here", flush=True)
"""


@contextmanager
def counters(file: Path) -> Iterator[Database]:
    database = Database(sa.create_engine(f"sqlite:///{file}"))
    database.write(lambda tx: tx.execute(sa.text("CREATE TABLE counters AS SELECT 0 AS value")))
    yield database
    database.engine.dispose()


def test_a_crowd_in_one_process_lets_another_process_in_between(file: Path):
    """SQLite's own way lets through whoever looks while nobody writes: those who have just written."""

    def value(tx) -> int:
        return int(tx.execute(sa.text("SELECT value FROM counters")).scalar_one())

    before_us = []
    with counters(file) as database, started(CROWD, file):
        wait_until(lambda: database.read(value) > 4)
        for _ in range(10):
            seen = database.read(value)
            before_us.append(database.write(value) - seen)
    assert sorted(before_us)[5] <= 3
    assert sum(before_us) > 0  # there was a crowd


def test_where_no_file_can_be_locked_sqlite_is_all_there_is(file: Path):
    for name in (NEXT, WRITER):
        file.with_name(file.name + name).mkdir()
    with counters(file) as database:
        assert database.read(lambda tx: tx.execute(sa.text("SELECT value FROM counters")).scalar_one()) == 0


def test_nothing_stays_open_of_a_queue_that_is_gone(file: Path):
    def opened() -> list[str]:
        links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return [str(each.readlink()) for each in links if str(file) in str(each.readlink())]

    queue = WriteQueue(file)
    with queue.turn(LONG):
        assert len(opened()) == 2
    del queue
    assert opened() == []


@contextmanager
def started(script: str, file: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()
