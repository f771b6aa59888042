"""`make faults [ARGS="E05 --seed 7"]`: run the plan, or some of it; tell what was found, here and in the manual."""

import argparse
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from tests.faults import (  # noqa: F401 - they register themselves
    abuse_experiments,
    clock_experiments,
    key_experiments,
    process_experiments,
    redis_experiments,
    sql_experiments,
    suite_experiments,
    token_experiments,
    topology_experiments,
    web_experiments,
)
from tests.faults.plan import EXPERIMENTS, Deployments, Finding, NotHere, Run
from tests.faults.report import Row, write

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("numbers", nargs="*", metavar="E05", help="only these experiments")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of every random choice")
    parser.add_argument("--list", action="store_true", help="only list the experiments")
    options = parser.parse_args()
    ordered = sorted(EXPERIMENTS)
    if options.list:
        for number in ordered:
            print(f"{number}  {EXPERIMENTS[number].does}")
        return 0
    unknown = set(options.numbers) - set(ordered)
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    chosen = [number for number in ordered if not options.numbers or number in options.numbers]
    print(f"seed {options.seed}; give it again with --seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="ts-faults-"))
    folder.chmod(0o755)
    deployments = Deployments(folder)
    commit = _commit()
    started = time.monotonic()
    rows = []
    try:
        for number in chosen:
            rows.append(_run(number, options.seed, deployments, commit))
            write(ROOT / "docs" / "reliability.md", rows[-1:])
    finally:
        deployments.close()
        shutil.rmtree(folder, ignore_errors=True)
    broken = [row.number for row in rows if row.broken]
    skipped = [row.number for row in rows if row.not_run]
    took = time.monotonic() - started
    print(f"\n{len(rows) - len(skipped)} experiments in {took:.0f} s, written to docs/reliability.md")
    if skipped:
        print(f"not run: {', '.join(skipped)}")
    if broken:
        print(f"BROKEN: {', '.join(broken)}")
    return 1 if broken else 0


def _run(number: str, seed: int, deployments: Deployments, commit: str) -> Row:
    experiment = EXPERIMENTS[number]
    print(f"\n{number}  {experiment.does}", flush=True)
    started = time.monotonic()
    not_run = ""
    try:
        found = experiment.run(Run(number, seed, deployments))
    except NotHere as reason:
        found, not_run = Finding(), str(reason)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the others are run all the same
        traceback.print_exc()
        found = Finding(broken=[f"{type(error).__name__}: {error}"])
    row = Row.of(experiment, found, time.monotonic() - started, seed, commit, not_run)
    for name, value in found.figures.items():
        print(f"       {name}: {value}")
    for each in found.broken:
        print(f"       BROKEN {each}")
    print(f"       {row.result} in {row.seconds:.0f} s", flush=True)
    return row


def _commit() -> str:
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


if __name__ == "__main__":
    sys.exit(main())
