"""CPU time that /proc tells of a tree of processes."""

import os
import subprocess
import sys

from benchmarks.processes import cpu_ms

BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_time_of_children_that_ended_stays():
    before = cpu_ms([os.getpid()])
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert cpu_ms([os.getpid()]) - before >= 190
