"""What keeps the memory of `serve` small: that it is so small, `make bench` says."""

from pathlib import Path

from tests.cli.conftest import Server

EXPECTED = {"MALLOC_MMAP_THRESHOLD_=1048576", "MALLOC_ARENA_MAX=2", "GLIBC_TUNABLES=glibc.malloc.tcache_count=0"}


def test_all_workers_ask_glibc_to_give_memory_back(server: Server):
    workers = server.workers()
    assert len(workers) == 2
    for pid in workers:
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert set(variables) >= EXPECTED
