"""Clients behind a load balancer, and what became of their refresh tokens.

`Balancer` does what balancers do: it asks `/readyz`, sends nothing to a node that isn't ready, and tries the next
node when a connection is refused. It never repeats a request that was sent.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from tests.live_server import LiveServer

CHECK_SECONDS = 0.1
# Of a client between two requests, which leaves the processor to what is waited for.
PAUSE = 0.02
# A client that gives up is a failure of its own; slow machines get time.
PATIENCE = 60.0


class Lost(Exception):
    """The request was sent, and there is no answer: nobody knows what became of it."""


class Balancer:
    """Keep-alive connections, one to each node and thread of the client's."""

    def __init__(self, nodes: Sequence[LiveServer]) -> None:
        self.nodes = nodes
        self.ready = [True] * len(nodes)
        self._turn = count()
        self._stopped = threading.Event()
        self._own = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._checks = [threading.Thread(target=self._check, args=(i,), daemon=True) for i in range(len(nodes))]

    def __enter__(self) -> Self:
        for thread in self._checks:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._checks:
            thread.join()
        for connection in self._opened:
            connection.close()

    def _check(self, index: int) -> None:
        while not self._stopped.wait(CHECK_SECONDS):
            self.ready[index] = readiness(self.nodes[index])[0] == 200

    def send(self, method: str, path: str, *, form: dict[str, str] | None = None, token: str = "") -> "Answer":
        """Raises Lost."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = None
        if form is not None:
            body = urlencode(form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        index, connection = self._connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(index, response.status, response.read(), response.headers)
        except (OSError, http.client.HTTPException) as error:
            self._drop(index)
            raise Lost(f"node {index}: {error!r}") from error
        if response.will_close:
            self._drop(index)
        return answer

    def _connect(self) -> tuple[int, http.client.HTTPConnection]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            turn = next(self._turn)
            order = [(turn + i) % len(self.nodes) for i in range(len(self.nodes))]
            for index in sorted(order, key=lambda i: not self.ready[i]):
                kept = self._kept().get(index)
                if kept is not None and not _is_closed(kept):
                    return index, kept
                self._drop(index)
                parts = urlsplit(self.nodes[index].url)
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    connection.close()
                    continue
                self._opened.append(connection)
                self._kept()[index] = connection
                return index, connection
            time.sleep(0.05)
        raise AssertionError("no node accepts connections")

    def _kept(self) -> dict[int, http.client.HTTPConnection]:
        kept: dict[int, http.client.HTTPConnection] = self._own.__dict__.setdefault("kept", {})
        return kept

    def _drop(self, index: int) -> None:
        connection = self._kept().pop(index, None)
        if connection is not None:
            connection.close()


class Answer:
    def __init__(self, node: int, status: int, body: bytes, headers: Any) -> None:
        self.node = node
        self.status = status
        self.body = body
        self.headers = headers


def readiness(node: LiveServer) -> tuple[int, bytes]:
    """Status, 0 without an answer, and body."""
    parts = urlsplit(node.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """The other side has closed it while it idled, as its owner would see before it sends."""
    sock = connection.sock
    if sock is None:
        return True
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(30)


class HonestClient(threading.Thread):
    """Refreshes on and on. Without an answer, and after a 503, it sends the same token again.

    `successors`: of each token that it sent, all that it was answered with.
    """

    def __init__(self, balancer: Balancer, refresh_token: str, pause: Callable[[], object] = lambda: None) -> None:
        super().__init__(daemon=True)
        self.balancer = balancer
        self.token = refresh_token
        self.stopped = threading.Event()
        self.successors: dict[str, set[str]] = {}
        self.outcomes: Counter[str] = Counter()
        self.lost: list[str] = []
        self.refused: list[str] = []
        self._pause = pause

    def run(self) -> None:
        while not self.stopped.is_set() and not self.refused:
            self.refresh()
            self._pause()

    def refresh(self) -> None:
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": self.token}
        try:
            answer = self.balancer.send("POST", "/oauth/token", form=form)
        except Lost as error:
            self.lost.append(str(error))
            self.outcomes["lost"] += 1
            return
        self.outcomes[str(answer.status)] += 1
        if answer.status == 200:
            successor = json.loads(answer.body)["refresh_token"]
            self.successors.setdefault(self.token, set()).add(successor)
            self.token = successor
        elif answer.status == 503 and int(answer.headers["Retry-After"]) >= 1:
            time.sleep(0.05)
        else:
            self.refused.append(f"{answer.status} {answer.body.decode(errors='replace')}")
