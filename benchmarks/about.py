"""On what a run was made: machine, versions, commit, date."""

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

from tokenserver.tokens import multi_buffer

ROOT: Final = Path(__file__).parent.parent


def about() -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "multi_buffer": multi_buffer.found().signs is not None,
    }


def _commit() -> str:
    """Short; with a plus where files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    """What tells its generation, since names of virtual ones don't."""
    info = Path("/proc/cpuinfo").read_text("utf-8")
    lines = [line.split(":", 1) for line in info.splitlines() if ":" in line]
    fields = {name.strip(): value.strip() for name, value in lines}
    name = f"{fields.get('model name', 'unknown')}, model {fields.get('model', '?')}"
    return name + (", AVX-512 IFMA" if "avx512ifma" in fields.get("flags", "") else "")
