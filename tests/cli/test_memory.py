"""What keeps the memory of `serve` small: that it is so small, `make bench` says."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Server
from tests.live_server import is_worker
from tokenserver.cli.workers import GRANIAN_ALLOCATOR

VARIABLE = "_RJEM_MALLOC_CONF"


def test_granians_allocator_heeds_what_workers_ask_of_it():
    """As it says itself. Where granian comes with another one, the variable is for nothing."""
    done = subprocess.run(
        [sys.executable, "-c", "import granian._granian"],
        env=os.environ | {VARIABLE: f"{GRANIAN_ALLOCATOR},stats_print:true"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = {line.strip() for line in done.stderr.splitlines()}
    assert {"opt.narenas: 1", "opt.tcache: false"} <= said, done.stderr[:2000]
    assert "Invalid conf" not in done.stderr


def test_all_workers_ask_for_it(server: Server):
    workers = [pid for pid in server.family() if is_worker(pid)]
    assert len(workers) == 2
    for pid in workers:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert f"{VARIABLE}={GRANIAN_ALLOCATOR}".encode() in variables
