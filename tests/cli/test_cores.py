import os
from pathlib import Path

import pytest

from tests.live_server import serving
from tokenserver.cli import cores
from tokenserver.identity.hash_threads import NICE


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the cores 3, 5 and 7, without a quota; its cgroup folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3, 7})
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    return tmp_path


def test_as_many_workers_as_cores_have_one_each(machine):
    assert [cores.core_of(worker, 3) for worker in range(3)] == [3, 5, 7]
    (machine / "cpu.max").write_text("max 100000\n")
    (machine / "cpu").mkdir()
    (machine / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.core_of(2, 3) == 7


@pytest.mark.parametrize("workers", [1, 2, 4, 6])
def test_more_or_fewer_are_the_kernel_s(machine, workers):
    assert cores.core_of(0, workers) is None


@pytest.mark.parametrize(("file", "text"), [("cpu.max", "150000 100000\n"), ("cpu/cpu.cfs_quota_us", "150000\n")])
def test_under_a_quota_too(machine, file, text):
    (machine / file).parent.mkdir(exist_ok=True)
    (machine / file).write_text(text)
    assert cores.core_of(0, 3) is None


def test_one_that_has_ended_is_nobody_s_loss():
    cores.put_on(0, 2**22 + 1)


def test_the_threads_of_a_worker():
    """All on its core, but those that hash passwords."""
    all_cores = os.sched_getaffinity(0)
    expected = [cores.core_of(worker, len(all_cores)) for worker in range(len(all_cores))]
    own, hashing = set(), set()
    with serving(workers=str(len(all_cores))) as server:
        server.signed_in("cores")
        for pid in server.workers():
            for thread in (int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()):
                is_hashing = os.getpriority(os.PRIO_PROCESS, thread) >= NICE
                (hashing if is_hashing else own).add(frozenset(os.sched_getaffinity(thread)))
    assert own == {frozenset(all_cores if core is None else {core}) for core in expected}
    assert hashing == {frozenset(all_cores)}
