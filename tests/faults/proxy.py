"""A TCP proxy that injects faults between two programs: it delays, loses, cuts, garbles and stalls.

It runs in a thread of its own; its attributes may be changed at any moment. Every random choice is of `seed`.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

CHUNK: Final = 65536


@dataclass(frozen=True)
class Odds:
    """The probabilities of what happens to a chunk on its way; the rest arrives.

    `late`: held back for `late_seconds`. `lost`: an answer that never comes, the connection stays open. `cut`: the
    connection ends instead. `torn`: half of it comes, then the connection ends.
    """

    late: float = 0.0
    lost: float = 0.0
    cut: float = 0.0
    torn: float = 0.0
    late_seconds: tuple[float, float] = (1.1, 2.5)

    def pick(self, chance: random.Random) -> str:
        number = chance.random()
        for what in ("late", "lost", "cut", "torn"):
            number -= getattr(self, what)
            if number < 0:
                return what
        return "arrives"


ALL_ARRIVE: Final = Odds()


class FaultProxy:
    """Listens on loopback and passes everything on to `target`: (host, port), or the path of a unix socket.

    `requests`, `answers`: the odds each way. `latency` in s, for each chunk of an answer. `refusing`: new
    connections are ended at once. `stalled`: nothing passes, nothing is ended. `garbage`: what is answered instead
    of passing anything on.
    """

    def __init__(self, target: tuple[str, int] | str, *, seed: int = 0, port: int = 0) -> None:
        self.target = target
        self.requests = ALL_ARRIVE
        self.answers = ALL_ARRIVE
        self.latency = 0.0
        self.refusing = False
        self.stalled = False
        self.garbage: bytes | None = None
        self.faults: Counter[str] = Counter()
        self.connections = 0
        self.port = port
        self._chance = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the proxy could not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Ends all connections, abruptly."""
        self._loop.call_soon_threadsafe(self._cut)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        waiting = asyncio.all_tasks(self._loop)
        for task in waiting:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.refusing:
                return
            if self.garbage is not None:
                await self._answer_garbage(reader, writer)
                return
            if isinstance(self.target, str):
                to_reader, to_writer = await asyncio.open_unix_connection(self.target)
            else:
                to_reader, to_writer = await asyncio.open_connection(*self.target)
            self._writers.add(to_writer)
            try:
                ways = (self._pass(reader, to_writer, answer=False), self._pass(to_reader, writer, answer=True))
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._writers.discard(to_writer)
                to_writer.transport.abort()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer_garbage(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(CHUNK):
            writer.write(self.garbage or b"")
            await writer.drain()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                while self.stalled:  # noqa: ASYNC110 - other threads set it
                    await asyncio.sleep(0.02)
                if answer and self.latency:
                    await asyncio.sleep(self.latency)
                odds = self.answers if answer else self.requests
                what = odds.pick(self._chance)
                if what != "arrives":
                    self.faults[f"{'answer' if answer else 'request'} {what}"] += 1
                match what:
                    case "late":
                        await asyncio.sleep(self._chance.uniform(*odds.late_seconds))
                    case "lost":
                        continue
                    case "cut":
                        return
                    case "torn":
                        writer.write(chunk[: max(1, len(chunk) // 2)])
                        await writer.drain()
                        return
                writer.write(chunk)
                await writer.drain()
