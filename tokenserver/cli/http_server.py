"""The HTTP server of a worker process: one thread reads, answers what is light, and writes; others do the rest.

What is asked most is answered where it is read (docs/adr/0031). A request that asks Redis is put aside, so that
many share one way there; one that needs SQL after all has that done in a thread. Whatever isn't light is answered
in one of `threads`, and what waits for revocations in a thread of its own.

All that is there is taken a step further before any of it takes the next (docs/adr/0035): it is read, begun,
signed, witnessed by Redis, sent, and told in the log.
"""

import errno
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from greenlet import getcurrent, greenlet

from tokenserver.cli.crew import Crew
from tokenserver.cli.http_connection import (
    CONTINUE,
    LAST_CHUNK,
    Connection,
    Head,
    Limits,
    Refusal,
    Request,
    in_chunk,
    place_of,
    refused,
)
from tokenserver.storage.aside import Aside, Together
from tokenserver.storage.round_trips import again
from tokenserver.web.usual import Usual

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

__all__ = ["HttpServer", "Limits"]

logger = logging.getLogger("tokenserver.http")

READ_BYTES: Final = 16 * 1024
# Requests that are read before the first of them is answered: they share a way to Redis.
TOGETHER: Final = 32
SWEEP_SECONDS: Final = 1.0
# That a client may take to read a part of an answer, and to end its side of a connection that ended here.
SEND_SECONDS: Final = 30.0
LINGER_SECONDS: Final = 2.0
# Threads for what light requests need beside Redis, for each of those that answer the others: who is stuck in SQL
# leaves some for the rest.
ERRANDS_FOR_EACH: Final = 4
READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
FAILED: Final = Refusal("500 Internal Server Error", "The request could not be answered.")
LATE: Final = Refusal("408 Request Timeout", "The request took too long.")


class Asked(NamedTuple):
    together: Together
    item: Any
    task: greenlet


class Done(NamedTuple):
    """In a thread: an answer, whole or sent."""

    connection: Connection
    data: bytes
    keeps: bool


class Found(NamedTuple):
    """In a thread: what a request waits for that was put aside."""

    task: greenlet
    result: Any
    error: BaseException | None


class Task(Aside):
    """Answers one request after the other of those that the loop's thread answers itself."""

    loop: "HttpServer"
    connection: Connection
    request: Request

    def run(self) -> None:
        while True:
            self.loop.answer_here(self.connection, self.request)
            self.loop.idle.append(self)
            self.loop.hub.switch()


class HttpServer:
    """`is_light`: of a request and its body, whether it seldom asks more than Redis. `usual`: of those, how it is
    answered without WSGI; None: with it. `may_wait`: whether it may wait for long without working; `waiting`
    answers those. `threads`: how many work at a time on what isn't light.
    `is_draining`: then each answer is the last one of its connection. `idle`: tasks without a request. `hub`: what
    they switch to.
    """

    def __init__(
        self,
        listener: socket.socket,
        application: "WSGIApplication",
        *,
        limits: Limits,
        threads: int,
        is_light: Callable[["WSGIEnvironment", bytes], bool],
        usual: Callable[["WSGIEnvironment"], Usual | None] = lambda _: None,
        may_wait: Callable[["WSGIEnvironment"], bool] = lambda _: False,
        waiting: "WSGIApplication | None" = None,
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._listener = listener
        self._application = application
        self._limits = limits
        self._is_light = is_light
        self._usual = usual
        self._may_wait = may_wait
        self._waiting = waiting or application
        self._is_draining = is_draining
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_asleep = False
        self._is_listening = False
        self._stopped_at = 0.0
        self._asked: list[Asked] = []
        self._ready: list[Done] = []
        self._later: dict[Callable[[Sequence[Any]], None], list[Any]] = {}
        self._reported: deque[Done | Found] = deque()
        self._answerable: deque[Connection] = deque()  # with another request that is whole
        self._crew = Crew("http", threads)
        self._errands = Crew("errands", threads * ERRANDS_FOR_EACH)
        self.hub = getcurrent()
        self._swept_at = time.monotonic()
        self.idle: list[Task] = []

    # The loop

    def run(self) -> None:
        """Until `stop`, and until what had begun then is answered."""
        self.hub = getcurrent()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._listener.setblocking(False)
        self._listen()
        while not self._is_over():
            self._turn()
            now = time.monotonic()
            if now - self._swept_at >= SWEEP_SECONDS:
                self._swept_at = now
                self._sweep(now)
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def _is_over(self) -> bool:
        if not self._stopped_at or self._is_open():
            return False
        return not self._connections or time.monotonic() - self._stopped_at > self._limits.finish_seconds

    def _is_open(self) -> bool:
        return self._listener.fileno() >= 0

    def stop(self) -> None:
        """From any thread, and from a signal handler."""
        self._stopped_at = self._stopped_at or time.monotonic()
        os.eventfd_write(self._wake, 1)

    def _turn(self) -> None:
        self._is_asleep = True  # before looking whether there is something: who reports from now on wakes us
        is_idle = not (self._reported or self._answerable)
        events = self._epoll.poll(SWEEP_SECONDS if is_idle else 0, TOGETHER)
        self._is_asleep = False
        for descriptor, _ in events:
            connection = self._connections.get(descriptor)
            if connection is not None:
                self._safely(self._look_at, connection)
            elif descriptor == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._let_everybody_in()
        for _ in range(len(self._answerable)):
            self._safely(self._begin, self._answerable.popleft())
        self._hear()
        self._send_all()
        while self._asked:
            self._fetch()
            self._send_all()
        self._settle()
        if self._stopped_at and self._is_open():
            self._close_door()

    def _listen(self) -> None:
        self._epoll.register(self._listener, select.EPOLLIN)
        self._is_listening = True

    def _stop_listening(self) -> None:
        if self._is_listening:
            self._epoll.unregister(self._listener)
            self._is_listening = False

    def _let_everybody_in(self) -> None:
        while len(self._connections) < self._limits.connections and self._let_in():
            pass

    def _let_in(self) -> bool:
        """False: nobody waits. Who doesn't find a place waits in the kernel's queue."""
        try:
            line, _ = self._listener.accept()
        except OSError as error:  # nobody, or no longer
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
                self._stop_listening()  # until the next sweep
            return False
        line.setblocking(False)
        try:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(line, place_of(line), self._limits)
        except OSError:  # it has gone
            line.close()
            return True
        self._connections[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, READABLE)
        if len(self._connections) >= self._limits.connections:
            self._stop_listening()
        return True

    def _close_door(self) -> None:
        """Those in the kernel's queue have connected: they are let in, and what they have sent is answered."""
        self._let_everybody_in()
        self._stop_listening()
        self._listener.close()
        for connection in [each for each in self._connections.values() if each.is_idle]:
            self._read(connection)
            if connection.is_idle:
                self._drop(connection)

    # What comes in

    def _safely(self, step: Callable[[Connection], None], connection: Connection) -> None:
        try:
            step(connection)
        except Exception:  # ours: it ends this connection, and no other
            logger.exception("a connection could not be served")
            self._drop(connection)

    def _look_at(self, connection: Connection) -> None:
        if connection.unsent is not None:
            self._send_on(connection, connection.unsent)
        elif connection.is_busy:
            self._unwatch(connection)  # what more it has to say is read after the answer
        else:
            self._read(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        if connection.is_lingering:
            return
        connection.receive(data)
        if connection.requests:
            self._queue(connection)
        elif connection.is_expecting():
            with suppress(OSError):
                connection.socket.send(CONTINUE)

    def _queue(self, connection: Connection) -> None:
        connection.is_busy = True
        self._answerable.append(connection)

    def _begin(self, connection: Connection) -> None:
        """The next one of its requests."""
        request = connection.requests.popleft()
        if isinstance(request, Refusal):
            self._send(connection, refused(request), keeps=False)
        elif request.usual is not None or self._is_light(request.environ, request.body):
            if not self._has_answered_at_once(connection, request):
                task = self.idle.pop() if self.idle else Task(parent=self.hub)
                task.loop, task.connection, task.request = self, connection, request
                task.switch()
        elif self._may_wait(request.environ):
            work = (connection, request, self._waiting)
            threading.Thread(target=self._answer_in_thread, args=work, name="waiting", daemon=True).start()
        else:
            self._crew.give(self._answer_in_thread, connection, request, self._application)

    # Answers in the loop's thread

    def _has_answered_at_once(self, connection: Connection, request: Request) -> bool:
        """Without a task: the answer is there."""
        answer = None if request.usual is None else request.usual.at_once(self.afterwards)
        if answer is None:
            return False
        self._ready.append(Done(connection, *connection.written(request, answer, closing=self._is_draining())))
        return True

    # These methods are called by a task

    def answer_here(self, connection: Connection, request: Request) -> None:
        try:
            usual = request.usual or self._usual(request.environ)
            if usual is None:
                data, keeps = self._answered(request, self._application, None)
            else:
                answer = usual.answer()
                if request.usual is None:
                    connection.remember(request, usual)
                data, keeps = connection.written(request, answer, closing=self._is_draining())
        except Exception:
            logger.exception("a request could not be answered")
            data, keeps = refused(FAILED), False
        self._ready.append(Done(connection, data, keeps))  # that of now: it may have been put aside meanwhile

    def ask(self, together: Together, item: Any) -> Any:
        self._asked.append(Asked(together, item, getcurrent()))
        return self.hub.switch()

    def elsewhere(self, work: Callable[[], T]) -> T:
        task, context = getcurrent(), copy_context()

        def report() -> None:
            try:
                self._report(Found(task, context.run(work), None))
            except BaseException as error:  # noqa: BLE001 - it is raised where the work is wanted
                self._report(Found(task, None, error))

        self._errands.give(report)
        return self.hub.switch()  # type: ignore[no-any-return]

    def afterwards(self, handle: Callable[[Sequence[T]], None], item: T) -> None:
        self._later.setdefault(handle, []).append(item)

    def _settle(self) -> None:
        """What was left for afterwards."""
        later, self._later = self._later, {}
        for handle, items in later.items():
            try:
                handle(items)
            except Exception:
                logger.exception("what follows an answer could not be done")

    def _fetch(self) -> None:
        """The answers to all that was asked meanwhile."""
        asked, self._asked = self._asked, []
        for together in {each.together for each in asked}:
            mine = [each for each in asked if each.together is together]
            try:
                replies = together.exchange([each.item for each in mine])
            except BaseException as error:  # noqa: BLE001 - each of them raises it
                for each in mine:
                    each.task.throw(again(error))
            else:
                for each, reply in zip(mine, replies, strict=True):
                    each.task.switch(reply)

    def _hear(self) -> None:
        for _ in range(len(self._reported)):
            report = self._reported.popleft()
            if isinstance(report, Done):
                self._ready.append(report)
            elif report.error is not None:
                report.task.throw(report.error)
            else:
                report.task.switch(report.result)

    # Answers in other threads

    def _answer_in_thread(self, connection: Connection, request: Request, application: "WSGIApplication") -> None:
        data, keeps = self._answered(request, application, connection)
        self._report(Done(connection, data, keeps))

    def _report(self, what: Done | Found) -> None:
        self._reported.append(what)
        if self._is_asleep:
            os.eventfd_write(self._wake, 1)

    def _answered(
        self, request: Request, application: "WSGIApplication", streamed_to: Connection | None
    ) -> tuple[bytes, bool]:
        """The bytes of the answer, or of its end. `streamed_to`: who gets a body of open length as it is made."""
        head = Head()
        body: Iterable[bytes] = ()
        try:
            body = application(request.environ, head)
            is_head = request.environ["REQUEST_METHOD"] == "HEAD"
            if streamed_to and head.is_length_open and not (is_head or isinstance(body, list)):
                return self._stream(request, head, body, streamed_to)
            parts = [*head.parts, *body]
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            begin, keeps = head.written(request, length=None if is_head else len(data), closing=self._is_draining())
            return (begin if is_head or head.is_bodiless else begin + data), keeps
        except Exception:
            logger.exception("a request could not be answered")
            return refused(FAILED), False
        finally:
            _close(body)

    def _stream(
        self, request: Request, head: Head, body: Iterable[bytes], connection: Connection
    ) -> tuple[bytes, bool]:
        """Sends from this thread: the loop leaves a busy connection alone."""
        begin, keeps = b"", False
        connection.socket.settimeout(SEND_SECONDS)
        try:
            parts = filter(None, body)
            for part in parts:
                if not begin:
                    begin, keeps = head.written(request, length=None, closing=self._is_draining())
                    connection.socket.sendall(begin)
                connection.socket.sendall(in_chunk(part) if head.is_chunked else part)
                connection.moved_at = time.monotonic()
            if not begin:
                return head.written(request, length=0, closing=self._is_draining())
        except OSError:  # the client has gone, or reads too slowly
            return b"", False
        finally:
            connection.socket.settimeout(0)
        return (LAST_CHUNK if head.is_chunked else b""), keeps

    # What goes out

    def _send_all(self) -> None:
        ready, self._ready = self._ready, []
        for done in ready:
            self._send(done.connection, done.data, keeps=done.keeps)

    def _send(self, connection: Connection, data: bytes, *, keeps: bool) -> None:
        connection.is_ending = not keeps
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent == len(data):
            self._finish(connection)
            return
        connection.moved_at = time.monotonic()
        connection.unsent = memoryview(data)[sent:]
        self._watch(connection, select.EPOLLOUT)

    def _send_on(self, connection: Connection, unsent: memoryview) -> None:
        try:
            sent = connection.socket.send(unsent)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        connection.moved_at = time.monotonic()
        connection.unsent = unsent[sent:] or None
        if connection.unsent is None:
            self._unwatch(connection)
            self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        """The answer is on its way."""
        connection.is_busy = False
        connection.moved_at = time.monotonic()
        if connection.since:  # the next one has begun, and wasn't read meanwhile
            connection.since = connection.moved_at
        if connection.is_ending:
            self._hang_up(connection)
        elif connection.requests:
            self._queue(connection)
        elif self._stopped_at and not connection.since:
            self._drop(connection)
        elif not connection.is_watched:
            self._watch(connection, READABLE)

    def _hang_up(self, connection: Connection) -> None:
        """RFC 9112 section 9.6: in two steps, or what the client still sends would destroy the answer."""
        connection.requests.clear()
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        connection.is_lingering = True
        self._watch(connection, READABLE)

    def _drop(self, connection: Connection) -> None:
        connection.is_ending = True
        if self._connections.pop(connection.descriptor, None) is None:
            return
        connection.socket.close()
        if not (self._is_listening or self._stopped_at):
            self._listen()

    def _watch(self, connection: Connection, events: int) -> None:
        if connection.is_watched:
            self._epoll.modify(connection.descriptor, events)
        else:
            self._epoll.register(connection.descriptor, events)
            connection.is_watched = True

    def _unwatch(self, connection: Connection) -> None:
        self._epoll.unregister(connection.descriptor)
        connection.is_watched = False

    def _sweep(self, now: float) -> None:
        """Hangs up on whoever is silent, drips, or doesn't read."""
        if not self._is_listening and not self._stopped_at and len(self._connections) < self._limits.connections:
            self._listen()
        for connection in list(self._connections.values()):
            is_coming = bool(connection.since) and not connection.is_busy
            if is_coming and now - connection.since > self._limits.request_seconds:
                connection.is_busy, connection.since = True, 0.0
                self._send(connection, refused(LATE), keeps=False)
            elif now - connection.moved_at > self._patience_with(connection):
                self._drop(connection)

    def _patience_with(self, connection: Connection) -> float:
        """Seconds that nothing may happen for."""
        if connection.unsent is not None:
            return SEND_SECONDS
        if connection.is_lingering:
            return LINGER_SECONDS
        # Of a request, all the time that there is counts, and an answer may take the time that it takes.
        return inf if connection.is_busy or connection.since else self._limits.idle_seconds


def _close(body: Iterable[bytes]) -> None:
    """PEP 3333. The answer is made: what fails now is for the log."""
    try:
        if close := getattr(body, "close", None):
            close()
    except Exception:
        logger.exception("the body of an answer could not be closed")
