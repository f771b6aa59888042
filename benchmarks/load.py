"""The load generator: keep-alive connections over raw sockets, each with one request at a time. A process of its
own, standard library alone, since it shares the processors with what it measures.

Reads a plan from standard input, writes what happened to standard output, both JSON:

    {"port": 8000, "connections": 32, "seconds": 2.0, "most": 100000, "kind": "fixed", "requests": ["GET / …"]}

* `fixed`: connection i sends requests[i mod their number], again and again.
* `queue`: each of `requests` is sent once; it is over when there are none left.
* `chain`: connection i sends tokens[i] behind `head` and `body`, then what the answer holds under `member`, and so
  on.

Ends after `seconds` or `most` requests; what is under way then is waited for. A 503 or 429 is asked again after its
Retry-After, as clients should. `collect`: what answers hold behind this text is told, such as tokens, up to 4,000.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Final

DRAIN_SECONDS: Final = 30.0
LONGEST_PAUSE: Final = 2.0
MOST_COLLECTED: Final = 4000


class Sender:
    """What the connections of a plan send next; None: nothing more."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._requests = [text.encode("latin-1") for text in plan.get("requests", ())]
        self.left = deque(self._requests)
        self.tokens: list[str] = list(plan.get("tokens", ()))
        self._head, self._body = (plan.get(part, "").encode("latin-1") for part in ("head", "body"))
        self._member = b'"' + plan.get("member", "").encode() + b'":'
        self.next = {"fixed": self._fixed, "queue": self._queue, "chain": self._chain}[plan["kind"]]

    def _fixed(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]

    def _queue(self, _number: int) -> bytes | None:
        return self.left.popleft() if self.left else None

    def _chain(self, number: int) -> bytes:
        body = self._body + self.tokens[number].encode("latin-1")
        return b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body)

    def heard(self, number: int, answer: bytes) -> None:
        """The successor of a chain's token."""
        if self.tokens and (found := answer.find(self._member)) >= 0:
            start = answer.index(b'"', found + len(self._member)) + 1
            self.tokens[number] = answer[start : answer.index(b'"', start)].decode("latin-1")


class Connection:
    """`answers`: whole answers, as (status, head, body)."""

    def __init__(self, port: int, number: int) -> None:
        self._port, self.number = port, number
        self.sent_at = 0.0
        self._buffer = b""
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=DRAIN_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes, bytes] | None:
        """None: not all there yet. Raises EOFError when the server has closed."""
        read = self.socket.recv(65536)
        if not read:
            raise EOFError
        self._buffer += read
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._buffer[:end]
        body = _body(head, self._buffer[end + 4 :])
        if body is None:
            return None
        self._buffer = b""
        return int(head[9:12]), head, body


def _body(head: bytes, rest: bytes) -> bytes | None:
    """None: not all there yet."""
    length = _header(head, b"content-length")
    if length is not None:
        return rest if len(rest) >= int(length) else None
    if _header(head, b"transfer-encoding") == b"chunked":
        return rest if rest.endswith(b"0\r\n\r\n") else None
    return rest


def _header(head: bytes, name: bytes) -> bytes | None:
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan, self._sender = plan, Sender(plan)
        marker = plan.get("collect", "").encode()
        self._collect = re.compile(re.escape(marker) + rb'[\s"]*([^&"\s]+)') if marker else None
        self.collected: list[str] = []
        self._selector = selectors.EpollSelector()
        self._waiting: list[tuple[float, Connection]] = []
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.closed = self._sent = self._pending = 0
        self.elapsed = 0.0

    def run(self) -> None:
        connections = [Connection(self._plan["port"], n) for n in range(self._plan["connections"])]
        started = time.perf_counter()
        self._until = started + self._plan["seconds"]
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._go_on(connection)
        while self._pending or self._waiting:
            if time.perf_counter() > self._until + DRAIN_SECONDS:
                raise SystemExit(f"{self._pending} requests were not answered within {DRAIN_SECONDS:.0f} s")
            for connection in self._ready():
                self._hear(connection)
        self.elapsed = time.perf_counter() - started
        for connection in connections:
            connection.socket.close()

    def _ready(self) -> Iterator[Connection]:
        for key, _ in self._selector.select(0.05 if self._waiting else 1.0):
            yield key.data
        now = time.perf_counter()
        due = [connection for at, connection in self._waiting if at <= now]
        self._waiting = [(at, connection) for at, connection in self._waiting if at > now]
        for connection in due:
            self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        if self._sent >= self._plan["most"] or time.perf_counter() >= self._until:
            return
        request = self._sender.next(connection.number)
        if request is not None:
            self._sent += 1
            self._pending += 1
            connection.send(request)

    def _hear(self, connection: Connection) -> None:
        try:
            answer = connection.receive()
        except (EOFError, ConnectionResetError):
            self._selector.unregister(connection.socket)
            self._pending -= 1
            self.closed += 1
            return
        if answer is None:
            return
        self.latencies.append(time.perf_counter() - connection.sent_at)
        self._pending -= 1
        status, head, body = answer
        self.statuses[status] += 1
        if status in {429, 503}:
            pause = min(float(_header(head, b"retry-after") or 1), LONGEST_PAUSE)
            self._waiting.append((time.perf_counter() + pause, connection))
            return
        self._sender.heard(connection.number, body)
        if self._collect and len(self.collected) < MOST_COLLECTED and (found := self._collect.search(head + body)):
            self.collected.append(found[1].decode("latin-1"))
        self._go_on(connection)

    def outcome(self) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        at = lambda part: 1000 * ordered[min(int(len(ordered) * part), len(ordered) - 1)]  # noqa: E731
        return {
            "answers": len(ordered),
            "elapsed_s": self.elapsed,
            "p50_ms": at(0.5) if ordered else None,
            "p99_ms": at(0.99) if ordered else None,
            "statuses": self.statuses,
            "closed": self.closed,
            "left": len(self._sender.left),
            "tokens": self._sender.tokens,
            "collected": self.collected,
        }


def main() -> None:
    load = Load(json.load(sys.stdin))
    load.run()
    json.dump(load.outcome(), sys.stdout)


if __name__ == "__main__":
    main()
