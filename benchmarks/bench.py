"""`make bench`: what each path costs, as a ratio to one raw signature measured in the same run.

Starts a server of its own on loopback with embedded stores, drives it over keep-alive connections, reads the CPU
time of its processes (the store apart) from /proc. Seconds are noisy on a shared machine; the ratios are steadier.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sign_in_timing import SignIns, disabler, figures

from tokenserver.tokens.key_ring import KeyRing
from tokenserver.verify import StaticKeys, Verifier

COMMAND = Path(sys.executable).with_name("tokenserver")
PASSWORD = "correct horse 7 battery"
SIGN_INS = 200


def raw_signature_ms(ring: KeyRing, seconds: float = 1.0) -> float:
    """CPU ms of one RS256 signature: the floor under a token."""
    sign = ring.signer("RS256").sign
    data = bytes(700)
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        sign(data)
        count += 1
    return (time.process_time() - started) * 1000 / count


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[str, int, int]]:
    """URL, port and process id of a server that is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TOKENSERVER_")} | {
        "TOKENSERVER_PORT": str(port),
        "TOKENSERVER_WORKERS": str(workers),
        "TOKENSERVER_DATA_DIR": str(folder / "var"),
        "TOKENSERVER_KEYS_DIR": str(folder / "keys"),
        "TOKENSERVER_RATE_LIMITS": "off",
        "TOKENSERVER_LOG_LEVEL": "warning",
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([COMMAND, "serve"], env=environment, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        os.environ.update({k: v for k, v in environment.items() if k.startswith("TOKENSERVER_")})
        yield url, port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def tree(pid: int) -> list[int]:
    """The server's own processes: children that aren't the store."""
    pids, parents = [pid], [pid]
    while parents:
        parent = parents.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                if b"redis-server" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    pids.append(child)
                    parents.append(child)
    return pids


def cpu_ms(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))
    return total / 1024


def request_bytes(method: str, path: str, headers: dict[str, str], body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


class Connection:
    """Sends the next request as soon as the answer to the last one is there."""

    def __init__(self, port: int, build: Callable[[bytes], bytes]) -> None:
        self.port, self.build = port, build
        self.latencies: list[float] = []
        self.errors = 0

    async def drive(self, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = b""
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(self.build(body))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.latencies.append(time.perf_counter() - started)
            self.errors += not head.startswith(b"HTTP/1.1 200")
        writer.close()


def measure(
    port: int, pids: list[int], builders: list[Callable[[bytes], bytes]], seconds: float
) -> dict[str, float]:
    async def run() -> list[Connection]:
        connections = [Connection(port, build) for build in builders]
        until = time.perf_counter() + seconds
        await asyncio.gather(*(c.drive(until) for c in connections))
        return connections

    before, started = cpu_ms(pids), time.perf_counter()
    connections = asyncio.run(run())
    elapsed, spent = time.perf_counter() - started, cpu_ms(pids) - before
    latencies = sorted(latency for c in connections for latency in c.latencies)
    return {
        "requests_per_s": len(latencies) / elapsed,
        "p50_ms": statistics.median(latencies) * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "cpu_ms": spent / len(latencies),
        "errors": sum(c.errors for c in connections),
    }


def post_json(url: str, body: dict[str, str]) -> dict[str, str]:
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
        return dict(json.load(response))


def builders(url: str, connections: int) -> dict[str, list[Callable[[bytes], bytes]]]:
    """For each path, what each connection sends."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    arguments = ["--grant", "client_credentials", "--scope", "posts:create tokens:introspect", "--json"]
    made = subprocess.run(
        [COMMAND, "client", "create", "--name", "bench", *arguments], check=True, capture_output=True
    )
    client = json.loads(made.stdout)
    basic = b64encode(f"{client['client_id']}:{client['client_secret']}".encode()).decode()
    authorized = form | {"Authorization": f"Basic {basic}"}
    user = {"username": "bench", "email": "bench@example.org", "password": PASSWORD}
    post_json(f"{url}/auth/register", user)
    sign_in = {"login": "bench", "password": PASSWORD}
    sign_ins = [post_json(f"{url}/auth/login", sign_in) for _ in range(connections)]
    access_token = sign_ins[0]["access_token"]

    def fixed(request: bytes) -> list[Callable[[bytes], bytes]]:
        return [lambda _last: request] * connections

    def refreshing(token: str) -> Callable[[bytes], bytes]:
        def build(last: bytes) -> bytes:
            nonlocal token
            if last:
                token = json.loads(last).get("refresh_token", token)
            body = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": token}
            return request_bytes("POST", "/oauth/token", form, urllib.parse.urlencode(body))

        return build

    bearer = {"Authorization": f"Bearer {access_token}"}
    login = request_bytes("POST", "/auth/login", {"Content-Type": "application/json"}, json.dumps(sign_in))
    return {
        "client_credentials": fixed(
            request_bytes("POST", "/oauth/token", authorized, "grant_type=client_credentials")
        ),
        "refresh with rotation": [refreshing(s["refresh_token"]) for s in sign_ins],
        "introspection": fixed(request_bytes("POST", "/oauth/introspect", authorized, f"token={access_token}")),
        "GET /users/me": fixed(request_bytes("GET", "/users/me", bearer)),
        "JWKS": fixed(request_bytes("GET", "/.well-known/jwks.json", {})),
        "discovery": fixed(request_bytes("GET", "/.well-known/openid-configuration", {})),
        "password sign-in": [lambda _last: login] * min(4, connections),
    }


def verifier_us(url: str, token: str, keys: dict[str, object]) -> float:
    verifier = Verifier(issuer=url, audience=url, keys=StaticKeys(keys), leeway=60)
    verifier.verify(token)
    count, started = 0, time.process_time()
    while time.process_time() - started < 0.5:
        verifier.verify(token)
        count += 1
    return (time.process_time() - started) * 1e6 / count


def sign_ins(port: int, count: int) -> dict[str, Any]:
    """What a clock tells about refused sign-ins."""
    asked = SignIns(port)
    asked.prepare(disabler([str(COMMAND)]))
    return figures(asked.times(count))


def show_sign_ins(workers: int, count: int, *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as name, serving(Path(name), workers) as (_, port, _):
        found = sign_ins(port, count)
    if as_json:
        print(json.dumps({"sign_ins": found}))
    else:
        print_sign_ins(found)


def print_sign_ins(found: dict[str, Any]) -> None:
    for kind, each in found["kinds"].items():
        line = f"{f'sign-in, {kind}':<24}{'':>9}{each['median_ms']:>9.1f}"
        print(f"{line}{'':>9}  p {each['p']:.2f} against a wrong password")
    print(f"their medians are {found['apart_percent']:.1f} % apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--sign-ins", type=int, metavar="N", help="only N refused sign-ins of each kind, and their time"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.sign_ins:
        show_sign_ins(options.workers, options.sign_ins, as_json=options.json)
        return
    with tempfile.TemporaryDirectory(prefix="ts-bench-") as name, serving(Path(name), options.workers) as started:
        url, port, pid = started
        ring = KeyRing(Path(name) / "keys", jwks_max_age=300, token_lifetime=300)
        plans = builders(url, options.connections)
        pids = tree(pid)
        floor = raw_signature_ms(ring)
        rows = {}
        for path, built in plans.items():
            figures = measure(port, pids, built, options.seconds)
            rows[path] = figures | {"ratio": figures["cpu_ms"] / floor}
        token = post_json(f"{url}/auth/login", {"login": "bench", "password": PASSWORD})["access_token"]
        warm = verifier_us(url, token, ring.jwks())
        memory = memory_mb(pids)
        refused = sign_ins(port, SIGN_INS)
    if options.json:
        shown = {"raw_signature_ms": floor, "verify_us": warm, "memory_mb": memory, "paths": rows}
        print(json.dumps(shown | {"sign_ins": refused}))
        return
    print(f"R = {floor:.3f} ms CPU for one raw RS256 signature; {options.workers} workers,", end=" ")
    print(f"{options.connections} connections; memory of the server's processes {memory:.0f} MB PSS")
    print(f"{'path':<24}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'ratio to R':>12}{'errors':>8}")
    for path, f in rows.items():
        line = f"{path:<24}{f['requests_per_s']:>9.0f}{f['p50_ms']:>9.1f}{f['p99_ms']:>9.1f}{f['cpu_ms']:>9.3f}"
        print(f"{line}{f['ratio']:>12.2f}{f['errors']:>8.0f}")
    print(f"{'verifier alone':<24}{1e6 / warm:>9.0f}{'':>18}{warm / 1000:>9.3f}{warm / 1000 / floor:>12.2f}")
    print_sign_ins(refused)


if __name__ == "__main__":
    main()
