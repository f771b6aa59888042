"""Ports for the servers of the tests."""

import os
import socket
from itertools import count

# Below those that the system gives out by itself, so that nobody takes one between the choice and the bind; each
# process of pytest-xdist has a range of its own.
FIRST = 20_000
EACH = 1_000

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = count(os.getpid())


def free_port() -> int:
    """One that nobody listens on, and that this process hands out to nobody else soon."""
    for number in _numbers:
        port = FIRST + _worker % 10 * EACH + number % EACH
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")
