"""Metrics that several processes share: sums that are right, that never fall, and that no disk can end."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import prometheus_client
import pytest

from tokenserver.signals import metrics, shared
from tokenserver.signals.instruments import MOST_NOTES, REGISTRY, Histogram, Instrument

# Counts as a worker does, says so, and waits for more until its input ends.
WORKER = """
import sys
from pathlib import Path
from tokenserver.signals import metrics, shared
from tokenserver.signals.instruments import REGISTRY
shared.enter(Path(sys.argv[1]))
metrics.workers.set(1)
for line in sys.stdin:
    for _ in range(int(line)):
        metrics.tokens_issued.count("password")
        metrics.sql_seconds.observe(0.02, "read")
    REGISTRY.settle()
    print("done", flush=True)
"""


class Worker:
    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def count(self, times: int) -> "Worker":
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(times, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    made: list[Worker] = []

    def start() -> Worker:
        made.append(Worker(tmp_path))
        return made[-1]

    yield start
    for each in made:
        each.kill()


@pytest.fixture(autouse=True)
def of_this_process_alone() -> Iterator[None]:
    yield
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    shared.enter(None)


def sums(folder: Path) -> dict[str, float]:
    found = {}
    for metric in shared.collect(folder):
        for sample in metric.samples:
            if sample.labels.get("grant", "password") == "password":
                found[sample.name] = max(sample.value, found.get(sample.name, 0.0))
    return found


def issued(folder: Path) -> float:
    return sums(folder).get("tokenserver_tokens_issued_total", 0.0)


def test_what_several_processes_count_is_added_up(tmp_path: Path, worker: Callable[[], Worker]):
    one, two = worker().count(3), worker().count(4)
    assert issued(tmp_path) == 7
    one.count(10)
    found = sums(tmp_path)
    assert (found["tokenserver_tokens_issued_total"], found["tokenserver_workers"]) == (17, 2)
    assert found["tokenserver_sql_transaction_duration_seconds_count"] == 17
    two.count(1)
    assert issued(tmp_path) == 18


def test_a_process_that_is_killed_takes_nothing_with_it(tmp_path: Path, worker: Callable[[], Worker]):
    """And whoever comes after it goes on with its files, so that they don't pile up."""
    staying, total = worker().count(1), 1
    for _ in range(4):
        leaving = worker().count(5)
        total += 5
        assert issued(tmp_path) == total
        leaving.kill()
        found = sums(tmp_path)
        assert (found["tokenserver_tokens_issued_total"], found["tokenserver_workers"]) == (total, 1)
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1
    assert issued(tmp_path) == total
    staying.count(1)
    assert issued(tmp_path) == total + 1


def test_the_folder_is_emptied_by_who_finds_nobody_in_it(tmp_path: Path, worker: Callable[[], Worker]):
    first = worker().count(5)
    second = worker().count(1)
    first.kill()
    third = worker().count(1)
    assert issued(tmp_path) == 7
    second.kill()
    third.kill()
    worker().count(2)
    assert issued(tmp_path) == 2


def test_a_server_that_was_killed_leaves_no_folder_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "places", lambda: [tmp_path / "nowhere", tmp_path])
    left, foreign = tmp_path / f"{shared.PREFIX}left", tmp_path / "something-else"
    for folder in (left, foreign):
        folder.mkdir()
        (folder / "lock").touch()
    mine = shared.make()
    assert (left.exists(), foreign.exists(), mine.parent) == (False, True, tmp_path)
    assert mine.stat().st_mode & 0o777 == 0o700
    other = shared.make()
    assert mine.exists()
    assert other != mine


def test_a_full_disk_costs_a_metric_and_not_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    shared.enter(tmp_path)
    metrics.tokens_issued.count("password")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    reserved = []
    for number in range(2000):  # more than the file has room for
        metrics.denials.count(f"/a/path/of/some/length/{number}", "posts:create", "insufficient_scope")
        REGISTRY.settle()
        reserved.append((tmp_path / f"counter_{os.getpid()}.db").stat().st_size)
    assert set(reserved) == {shared.LEAST_BYTES}
    assert "no room for another metric: No space left on device" in caplog.text
    metrics.tokens_issued.count("password")
    assert issued(tmp_path) == 2


def test_files_grow_as_labels_come(tmp_path: Path):
    shared.enter(tmp_path)
    for number in range(1000):
        metrics.denials.count(f"/a/path/of/some/length/{number}", "posts:create", "insufficient_scope")
    REGISTRY.settle()
    assert (tmp_path / f"counter_{os.getpid()}.db").stat().st_size > shared.LEAST_BYTES
    values = [
        sample.value
        for metric in shared.collect(tmp_path)
        for sample in metric.samples
        if sample.name == "tokenserver_denials_total"
    ]
    assert values == [1.0] * 1000


def test_two_threads_make_one_child(tmp_path: Path):
    shared.enter(None)
    barrier = threading.Barrier(8)

    def count() -> None:
        barrier.wait()
        for number in range(50):
            metrics.denials.count(f"/{number}", "", "x")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    REGISTRY.settle()
    found = {
        sample.labels["endpoint"]: sample.value
        for metric in REGISTRY.of_process().collect()
        for sample in metric.samples
        if sample.name == "tokenserver_denials_total"
    }
    assert found == {f"/{number}": 8.0 for number in range(50)}


def test_what_is_known_is_there_from_the_start(tmp_path: Path):
    shared.enter(tmp_path)
    found = {
        tuple(sample.labels.values())
        for metric in shared.collect(tmp_path)
        for sample in metric.samples
        if sample.name == "tokenserver_refreshes_total"
    }
    assert found == {(word,) for word in ("rotated", "replayed", "fast_forwarded", "reused", "ended", "expired")}


def value(instrument: Instrument, part: str = "") -> float | None:
    """Without adding up first."""
    return REGISTRY.of_process().get_sample_value(instrument.name + part)


def test_observations_are_added_up_before_they_are_many():
    """Though nobody reads."""
    shared.enter(None)
    for _ in range(MOST_NOTES):
        metrics.hash_wait_seconds.observe(0.5)
    assert value(metrics.hash_wait_seconds, "_count") == 0
    metrics.hash_wait_seconds.observe(0.5)
    assert value(metrics.hash_wait_seconds, "_count") == MOST_NOTES + 1
    assert value(metrics.hash_wait_seconds, "_sum") == (MOST_NOTES + 1) / 2


def test_a_counter_takes_fractions_at_once():
    shared.enter(None)
    metrics.cpu_seconds.add(0.25)
    metrics.cpu_seconds.add(0.5)
    assert value(metrics.cpu_seconds) == 0.75


def test_nothing_is_lost_or_counted_twice_while_others_add_up():
    shared.enter(None)
    each, interval = 20_000, sys.getswitchinterval()

    def note() -> None:
        for _ in range(each):
            metrics.families_rebuilt.count()
            metrics.hash_wait_seconds.observe(1)

    threads = [threading.Thread(target=note) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            REGISTRY.settle()
        REGISTRY.settle()
    finally:
        sys.setswitchinterval(interval)
    assert value(metrics.families_rebuilt) == 4 * each
    assert value(metrics.hash_wait_seconds, "_count") == 4 * each
    assert value(metrics.hash_wait_seconds, "_sum") == 4 * each


def test_observations_are_added_up_as_prometheus_would(tmp_path: Path):
    shared.enter(None)
    theirs = prometheus_client.Histogram("theirs", "", registry=None, buckets=Histogram.options["buckets"])
    for seconds in (0.0, 0.001, 0.0011, 0.03125, 0.03125, 10.0, 10.5, 1e9):
        metrics.hash_wait_seconds.observe(seconds)
        theirs.observe(seconds)
    REGISTRY.settle()
    [ours] = [each for each in REGISTRY.of_process().collect() if each.name.endswith("hash_wait_seconds")]
    values = {(sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value for sample in ours.samples}
    for sample in next(iter(theirs.collect())).samples:
        if not sample.name.endswith("_created"):
            assert values[sample.name.rpartition("_")[2], sample.labels.get("le")] == pytest.approx(sample.value)
