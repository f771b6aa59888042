"""Worker processes killed amid refreshes (E26): for the suite, and for `make faults`, which does it 100 times."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.live_server import LiveServer
from tests.nodes.balancing import PAUSE, Balancer, HonestClient

PATIENCE = 60.0


@dataclass
class Toll:
    """What became of the clients. `signed_out`: answers that told one to sign in again. `forks`: tokens that were
    answered with two different successors."""

    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    signed_out: list[str] = field(default_factory=list)
    forks: int = 0


def kill_workers_amid_refreshes(
    nodes: Sequence[LiveServer], refresh_tokens: Sequence[str], kills: int, seed: int = 0
) -> Toll:
    """kill -9 of one worker of any node at a time, `kills` times, while each of `refresh_tokens` (one family each)
    is refreshed on and on. The next one dies when all have refreshed again, perhaps while it starts.
    """
    chance = random.Random(seed)
    toll = Toll()
    with Balancer(nodes) as balancer:
        clients = [HonestClient(balancer, token, pause=lambda: time.sleep(PAUSE)) for token in refresh_tokens]
        for client in clients:
            client.start()
        try:
            for _ in range(kills):
                node = chance.choice(nodes)
                before = node.workers()
                _wait_for_refreshes(clients, more=len(clients))
                victim = chance.choice(sorted(before))
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                toll.kills += 1
                _wait_for_worker(node, before, victim)
        finally:
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join(PATIENCE)
        for client in clients:
            if not client.refused:
                client.refresh()  # the last one may have been lost
        for client in clients:
            toll.outcomes.update(client.outcomes)
            toll.signed_out += client.refused
            toll.forks += sum(len(found) > 1 for found in client.successors.values())
    return toll


def _wait_for_refreshes(clients: Sequence[HonestClient], more: int) -> None:
    done = sum(len(client.successors) for client in clients)
    deadline = time.monotonic() + PATIENCE
    while sum(len(client.successors) for client in clients) < done + more:
        if any(client.refused for client in clients):
            return
        assert time.monotonic() < deadline, "nothing is refreshed any more"
        time.sleep(0.005)


def _wait_for_worker(node: LiveServer, before: set[int], victim: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(node.workers() - {victim}) < len(before) or not node.workers() - before:
        assert node.is_running, node.log_file.read_text(errors="replace")[-4000:]
        assert time.monotonic() < deadline, "the killed worker was not replaced"
        time.sleep(0.05)
