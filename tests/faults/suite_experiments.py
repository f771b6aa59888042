"""E27, E28 and E40-E44: what the suite has in full. The row tells how many of its tests passed."""

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.plan import Finding, NotHere, Run, experiment

ROOT = Path(__file__).parents[2]
NODES = "tests/nodes/test_one_deployment.py"


def suite(number: str, does: str, holds: str, *tests: str) -> None:
    """`tests`: as pytest takes them."""

    @experiment(number, f"{does} (tests of the suite)", holds)
    def run(run: Run) -> Finding:
        del run
        missing = {file for file in (test.partition("::")[0] for test in tests) if not (ROOT / file).is_file()}
        if missing:
            raise NotHere(f"there is no {', '.join(sorted(missing))}")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines() or [""]
        found = Finding()
        counts = dict.fromkeys(("passed", "failed", "skipped", "error"), 0)
        for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1]):
            counts[what] = int(count)
        found.tell(tests=", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none")
        found.require(done.returncode == 0 and counts["passed"], f"pytest: {lines[-1]}")
        found.broken += [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return found


suite(
    "E27",
    "rolling restart by SIGTERM under load, 2 nodes × 2 workers",
    "no request fails",
    "tests/nodes/test_restarts.py::test_a_rolling_restart_under_load",
    "tests/nodes/test_restarts.py::test_who_drains_says_so_and_still_answers",
)
suite(
    "E28",
    "every migration up, with data, on each backend; the previous release on the new schema",
    "both releases serve",
    "tests/storage/test_migrations.py",
)
suite(
    "E40",
    "demoted or disabled while a token lives, two nodes",
    "refused from the next request on: staleness 0",
    f"{NODES}::test_whoever_is_demoted_or_disabled_is_refused_at_once",
    f"{NODES}::test_what_is_revoked_at_one_node_is_dead_at_the_other",
)
suite(
    "E41",
    "two admins remove each other; one role edited at two nodes",
    "somebody can manage roles; no escalation",
    f"{NODES}::test_two_admins_remove_each_other",
    f"{NODES}::test_a_role_edited_at_two_nodes_at_once",
)
suite(
    "E42",
    "one name registered 50 times at once, in variants",
    "one account, 49 × 409",
    f"{NODES}::test_one_name_registered_50_times_at_two_nodes",
)
suite(
    "E43",
    "consent and codes while the client is deleted",
    "no code for a client that is gone",
    f"{NODES}::test_no_code_for_a_client_that_is_deleted_meanwhile",
)
suite(
    "E44",
    "SQL restored from an older backup, with Redis as it was and emptied",
    "what lives again is documented; nothing does after `session revoke --all`",
    "tests/storage/test_restore.py",
)
