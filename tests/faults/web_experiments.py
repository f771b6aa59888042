"""E34, E37 to E39, E45, E46: strangers at the door, who are slow, large, ambiguous, curious or random."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.advisories.test_request_framing import AMBIGUOUS, statuses
from tests.faults.deployment import Deployment, workers_of
from tests.faults.history import Kind
from tests.faults.plan import Finding, Run, experiment, now
from tests.faults.suite_experiments import suite
from tests.flows.test_role_matrix import PEOPLE, matrix
from tests.hostile.test_section0 import REQUESTS
from tests.live_server import LiveServer

ROOT = Path(__file__).parents[2]
# Of chance, for each database. `TOKENSERVER_TEST_FUZZ_SECONDS` takes more, for a night.
FUZZ_SECONDS = 100
SOCKETS = 500
HOLD = 15.0
GIGABYTE = 10**9
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
HEAD = b"POST /oauth/token HTTP/1.1\r\nHost: x\r\n" + FORM


def connect(node: LiveServer, patience: float = 60) -> socket.socket:
    parts = urlsplit(node.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=patience)


@contextlib.contextmanager
def slowly(made: Deployment, head: bytes, drip: bytes) -> Iterator[Counter[str]]:
    """`SOCKETS` at the first node that send `head` and then `drip` once a second, and open anew when they are hung
    up on."""
    counts = Counter[str]()
    ending = threading.Event()

    def go_on() -> None:
        with ExitStack() as stack:
            sockets: list[socket.socket | None] = [None] * SOCKETS
            stack.callback(lambda: [each.close() for each in sockets if each])
            while not ending.wait(1):
                for number, each in enumerate(sockets):
                    sockets[number] = _drip(made.first, each, head, drip, counts)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield counts
    finally:
        ending.set()
        thread.join()


def _drip(
    node: LiveServer, each: socket.socket | None, head: bytes, drip: bytes, counts: Counter[str]
) -> socket.socket | None:
    with contextlib.suppress(OSError):
        if each is None:
            each = connect(node, patience=1)
            counts["opened"] += 1
            each.sendall(head)
        else:
            each.sendall(drip)
        return each
    if each is not None:
        counts["hung up on"] += 1
        each.close()
    return None


@experiment(
    "E37",
    "500 sockets that send a head, then a body, one byte in 1 s, for 45 s each, while others refresh; 1 GB "
    "announced and streamed; 10,000 headers; lengths and encodings in nine ways that can be read in two",
    "the others are served; 4xx and the connection is closed",
)
def slow_large_and_ambiguous(run: Run) -> Finding:
    found = Finding()
    with run.deployed(nodes=1) as made, run.loaded(made, holders=10) as load:
        started = now()
        time.sleep(HOLD)
        spans = {"quiet": (started, now())}
        for name, head, drip in (
            ("slow heads", b"POST /oauth/token HTTP/1.1\r\nHost: x\r\n", b"X"),
            ("slow bodies", HEAD + b"Content-Length: 60000\r\n\r\ngrant_type=", b"x"),
        ):
            with slowly(made, head, drip) as counts:
                since = now()
                time.sleep(3 * HOLD)
                spans[name] = (since, now())
            found.tell(**{name.replace(" ", "_"): f"{counts['opened']} opened, {counts['hung up on']} hung up on"})
            found.require(counts["opened"] >= SOCKETS, f"{name}: only {counts['opened']} were opened")
        memory = _memory(made.first)
        for name, request in LARGE.items():
            answer = _first_line(made.first, request)
            found.tell(**{name.replace(" ", "_"): answer})
            found.require(re.match(r"HTTP/1\.1 4\d\d", answer) or answer == "closed", f"{name}: {answer}")
        found.tell(MB_more_of_memory=_memory(made.first) - memory)
        odd = {what: got for what in AMBIGUOUS if (got := _ambiguous(made.first, what)) not in ([b"400"], [])}
        found.tell(ambiguous=f"{len(AMBIGUOUS) - len(odd)} of {len(AMBIGUOUS)} refused and closed")
        found.require(not odd, f"ambiguous: {odd}")
        load.settle()
    for name, span in spans.items():
        found.tell(**{f"p99_ms_{name}".replace(" ", "_"): run.latency(Kind.REFRESH, *span)[1]})
        found.tell(**{f"refused_{name}".replace(" ", "_"): run.refused_share(*span)})
        asked = run.asked(*span)
        found.require(asked and run.refused_share(*span) == "0 %", f"{name}: others were not served")
    run.verdict(found)
    return found


LARGE = {
    "1 GB announced": HEAD + b"Content-Length: %d\r\n\r\n" % GIGABYTE,
    "1 GB streamed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "10,000 headers": HEAD + b"".join(b"X-%d: x\r\n" % number for number in range(10_000)) + b"\r\n",
}


def _ambiguous(node: LiveServer, what: str) -> list[bytes]:
    return statuses(node, AMBIGUOUS[what], "/smuggled")


def _first_line(node: LiveServer, head: bytes) -> str:
    """What is answered while up to 1 GB comes, and that nothing is after it."""
    with connect(node) as connection:
        connection.sendall(head)
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if b"chunked" in head else b"x" * 0x10000
        connection.setblocking(False)
        answer, sent = bytearray(), 0
        deadline = now() + 60
        is_open = True
        while is_open and now() < deadline and sent < GIGABYTE:
            with contextlib.suppress(BlockingIOError):
                try:
                    sent += connection.send(chunk)
                except ConnectionError:
                    is_open = False
            is_open = _read(connection, answer) and is_open
    if is_open:
        return f"not closed after {sent} bytes"
    return answer.split(b"\r\n")[0].decode() or "closed"


def _read(connection: socket.socket, answer: bytearray) -> bool:
    """What is there by now. False when nothing more can come."""
    try:
        while got := connection.recv(65536):
            answer += got
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def _memory(node: LiveServer) -> int:
    """MB of the workers."""
    found = 0
    for pid in workers_of(node):
        status = Path(f"/proc/{pid}/status").read_text()
        found += int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024
    return found


@experiment(
    "E34",
    "200 sign-ins each, in random order: unknown, wrong password, disabled with a wrong password",
    "medians within 10 %",
)
def timing(run: Run) -> Finding:
    found = Finding()
    command = [sys.executable, "-m", "benchmarks", "--sign-ins", "200", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)["sign_ins"]
    for name, each in figures["kinds"].items():
        found.tell(**{f"{name}_ms".replace(" ", "_"): f"{each['median_ms']:.1f} (p {each['p']:.2f})"})
    found.tell(apart_percent=figures["apart_percent"])
    found.require(figures["apart_percent"] <= 10, "the medians are further apart")
    del run
    return found


suite(
    "E38",
    f"{sum(map(len, REQUESTS.values())):,} hostile requests over every endpoint, on SQLite and PostgreSQL",
    "the expected status, no effect, no 5xx",
    "tests/hostile/test_section0.py",
    "tests/hostile/test_every_endpoint.py",
)
suite(
    "E39",
    f"every route by {', '.join(PEOPLE[:-1])} and {PEOPLE[-1]}: {sum(map(len, matrix().values())):,} cells",
    "each as the table in docs/permissions.md says",
    "tests/flows/test_role_matrix.py",
)
suite(
    "E45",
    "every grant and page by live requests, hostile input in all of them; all files, the SQL event log and the log "
    "searched for each secret",
    "no hits; one line of log for an event; no ESC, CR or LF from input",
    "tests/flows/test_no_secret_is_kept.py",
)


@experiment(
    "E46",
    f"Schemathesis with the API description for {FUZZ_SECONDS} s on each database, the grants with random input, "
    "families by a state machine of Hypothesis; plan: 30 min for each route",
    "no 5xx, answers as described",
)
def fuzzing(run: Run) -> Finding:
    found = Finding()
    tests = ("tests/flows/test_schemathesis.py", "tests/oauth/test_fuzz.py", "tests/tokens/test_refresh_machine.py")
    for test in tests:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--hypothesis-seed={run.seed}",
            test,
        ]
        environment = os.environ | {"TOKENSERVER_TEST_FUZZ_SECONDS": str(FUZZ_SECONDS)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines() or [""]
        found.tell(**{Path(test).stem: lines[-1].strip("= ")})
        found.require(done.returncode == 0, f"{test}: {lines[-1]}")
        found.broken += [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return found
