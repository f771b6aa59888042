"""CPU time that /proc tells of a tree of processes."""

import os
import subprocess
import sys

from benchmarks.processes import main_thread_ms

BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_time_of_children_that_ended_stays():
    before = main_thread_ms([os.getpid()])
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert main_thread_ms([os.getpid()]) - before >= 150
