"""E30: over all processes of a machine, a storm of sign-ins never takes the last core."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.stores import wait_until
from tokenserver.identity import hash_places
from tokenserver.identity.hash_places import HashPlaces, shared_folder
from tokenserver.identity.hash_threads import NICE, HashThreads

# Two threads hash ten times each; a file that is only appended to says who began and who ended.
HASHING = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tokenserver.identity import hash_places
from tokenserver.identity.hash_threads import HashThreads

hash_places.PATIENCE_SECONDS = 60
threads = HashThreads(2, hash_places.HashPlaces(Path(sys.argv[1]), 1))
said = os.open(Path(sys.argv[1]) / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work():
    os.write(said, b"+")
    time.sleep(0.005)
    os.write(said, b"-")

os.write(said, b"r")
while (Path(sys.argv[1]) / "said").read_bytes().count(b"r") < 2:
    time.sleep(0.001)
with ThreadPoolExecutor(2) as asking:
    for _ in range(20):
        asking.submit(threads.run, work)
"""


def test_one_at_once_over_two_processes(tmp_path: Path):
    command = [sys.executable, "-c", HASHING, str(tmp_path)]
    both = [subprocess.Popen(command) for _ in range(2)]
    try:
        assert [each.wait(60) for each in both] == [0, 0]
    finally:
        for each in both:
            each.kill()
            each.wait()
    at_once = most = 0
    said = (tmp_path / "said").read_text()
    for sign in said:
        at_once += {"+": 1, "-": -1, "r": 0}[sign]
        most = max(most, at_once)
    assert Counter(said) == {"+": 40, "-": 40, "r": 2}
    assert most == 1


def test_as_many_as_there_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hash_places, "PATIENCE_SECONDS", 60)
    places = HashPlaces(tmp_path, 2)
    with places.one(), places.one():
        assert [_is_held(tmp_path / name) for name in ("place-0", "place-1", "door")] == [True, True, False]
    assert not _is_held(tmp_path / "place-0")


def test_the_place_of_a_process_that_was_killed_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hash_places, "PATIENCE_SECONDS", 60)
    holds = "import sys, time\nfrom pathlib import Path\nfrom tokenserver.identity.hash_places import HashPlaces\n"
    holds += "with HashPlaces(Path(sys.argv[1]), 1).one():\n    print('held', flush=True)\n    time.sleep(300)\n"
    with subprocess.Popen([sys.executable, "-c", holds, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            assert _is_held(tmp_path / "place-0")
        finally:
            holder.send_signal(signal.SIGKILL)
    with HashPlaces(tmp_path, 1).one():
        assert _is_held(tmp_path / "place-0")


def test_who_waited_comes_before_who_had_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker whose queue is full would take its place again before the other one has noticed that it is free."""
    monkeypatch.setattr(hash_places, "PATIENCE_SECONDS", 60)
    order: list[str] = []

    def other() -> None:
        with HashPlaces(tmp_path, 1).one():
            order.append("other")

    with ThreadPoolExecutor(1) as pool:
        with HashPlaces(tmp_path, 1).one():
            waits = pool.submit(other)
            wait_until(lambda: _is_held(tmp_path / "door"), "the other waits for the place")
        with HashPlaces(tmp_path, 1).one():
            order.append("again")
        waits.result(60)
    assert order == ["other", "again"]


def _is_held(file: Path) -> bool:
    descriptor = hash_places._lock_one([file])
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def test_nobody_waits_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Places are for the sake of refreshes: where they can't be had, people sign in all the same."""
    monkeypatch.setattr(hash_places, "PATIENCE_SECONDS", 0.02)
    for places in (HashPlaces(tmp_path / "cleared away", 1), HashPlaces(None, 1)):
        assert HashThreads(1, places).run(lambda: "hashed") == "hashed"
    with HashPlaces(tmp_path, 1).one():
        assert HashThreads(1, HashPlaces(tmp_path, 1)).run(lambda: "hashed") == "hashed"


def test_what_fails_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hash_places, "PATIENCE_SECONDS", 60)
    threads = HashThreads(1, HashPlaces(tmp_path, 1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            threads.run(lambda: 1 // 0)
    assert not _is_held(tmp_path / "place-0")
    assert not _is_held(tmp_path / "door")


def test_the_folder_is_this_user_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hash_places.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = shared_folder()
    assert folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert shared_folder() == folder
    folder.chmod(0o770)
    assert shared_folder() is None
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    folder.symlink_to(elsewhere)
    assert shared_folder() is None
    folder.unlink()
    folder.write_text("")
    assert shared_folder() is None
    monkeypatch.setattr(hash_places.tempfile, "gettempdir", lambda: str(tmp_path / "missing"))
    assert shared_folder() is None


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux alone")
def test_hashes_take_the_time_that_nobody_else_needs():
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    threads = HashThreads(2, HashPlaces(None, 1))
    assert {threads.run(priority) for _ in range(4)} == {min(19, before + NICE)}
    assert priority() == before
