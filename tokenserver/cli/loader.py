"""A process that loads the program once and forks those that need it, then ends.

Who is forked has the program at once, and shares with the others what none of them writes to. The loader itself
would be one copy more: when it has ended, Linux gives its children to `serve` (PR_SET_CHILD_SUBREAPER). It runs no
thread and holds no connection, lock or file of `serve`, so nothing of that kind is forked.
"""

import ctypes
import gc
import io
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe, get_context, parent_process, resource_tracker
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, clear_overloads

from tokenserver.cli.immortal import make_immortal
from tokenserver.cli.phase import Phase
from tokenserver.errors import StoreUnavailable, TokenserverError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")

SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
WATCH_SECONDS: Final = 0.1


class LoaderEnded(TokenserverError):
    """It was killed, or could not load the program and said why."""


class Loader:
    """Of `serve`, which is the parent of all that is forked once the loader is closed."""

    def __init__(self, phase: Phase, *, for_server_database: bool, is_fork: bool = False) -> None:
        """Loads while others work: the first question waits for it. `for_server_database`: with its driver.
        `is_fork`: of this process, which has one thread and nothing open yet: what it has loaded is shared then."""
        self.phase = phase
        self._for_server_database = for_server_database
        _track_nothing()
        self._connection, theirs = Pipe()
        arguments = (theirs, phase, for_server_database)
        self._process: BaseProcess
        if is_fork:
            _keep()
            self._process = get_context("fork").Process(target=self._go_on, args=arguments, daemon=True)
        else:
            self._process = get_context("spawn").Process(target=_load, args=arguments, daemon=True)
        _adopt_orphans(True)
        self._process.start()
        theirs.close()

    def _go_on(self, *arguments: Any) -> None:
        """In a fork, where nothing of `serve` goes on but what is said to the loader."""
        self._connection.close()  # or it would not see that `serve` closed it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _load(*arguments)

    def again(self) -> "Loader":
        """Another one, of the same server."""
        return Loader(self.phase, for_server_database=self._for_server_database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()  # tells it to end
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        _adopt_orphans(False)

    def wait(self) -> None:
        """Until the program is loaded. Raises LoaderEnded."""
        self._ask(None)

    def fork(self, target: Callable[..., object], arguments: tuple[Any, ...]) -> int:
        """The pid of a process that does this. Raises LoaderEnded."""
        return int(self._ask((target, arguments)))

    def apart(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns or raises in a process of its own; what it had to load or connect to ends with it.

        Raises LoaderEnded when that process ends without a word. It ends when this call does, whatever ends it.
        """
        pid = self.fork(_tell, (work, arguments))
        is_over = False
        try:
            said = self._ask(pid)
            is_over = said is None
        finally:
            if not is_over:  # it would only tidy up
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self._hear_out()
        if said is None:
            raise LoaderEnded(private="a process that prepares the start was ended")
        result, error = said
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _ask(self, question: Any) -> Any:
        try:
            self._connection.send_bytes(_pickled(question))
            return self._connection.recv()
        except (EOFError, OSError):
            raise LoaderEnded(private="a process that loads the program was ended") from None

    def _hear_out(self) -> None:
        """Until nothing is left of the process that worked apart."""
        with suppress(EOFError, OSError):
            while self._connection.recv() is not None:
                pass


class Forked:
    """A process that a loader forked, as its parent sees it: who closed the loader. For one thread."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exitcode: int | None = None  # of one that is known to have ended; -9: it was killed by signal 9

    def has_ended(self) -> bool:
        if self.exitcode is None:
            self._look(os.WNOHANG)
        return self.exitcode is not None

    def join(self) -> None:
        """Until it has ended."""
        if self.exitcode is None:
            self._look(0)

    def _look(self, options: int) -> None:
        with suppress(ChildProcessError):  # its parent is the loader yet
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.exitcode = os.waitstatus_to_exitcode(status)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.exitcode is None:  # until its parent was told, its pid is nobody else's
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


# In `serve`


def _track_nothing() -> None:
    """multiprocessing would start a process that clears away named semaphores and shared memory. Nobody here has
    any, and it would take 7 MB.
    """
    tracker: Any = resource_tracker._resource_tracker  # noqa: SLF001 - no other way
    if tracker._fd is None:  # noqa: SLF001
        tracker._fd = os.open(os.devnull, os.O_WRONLY)  # noqa: SLF001


def _adopt_orphans(wanted: bool) -> None:
    if ctypes.CDLL(None).prctl(SUBREAPER, int(wanted), 0, 0, 0):
        raise TokenserverError(private="this system gives nobody the children of another process (prctl)")


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> str | None:
        """Shared memory is handed over when a process is spawned, and not later."""
        return "phase" if isinstance(value, Phase) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, phase: Phase) -> None:
        super().__init__(io.BytesIO(data))
        self._phase = phase

    def persistent_load(self, _pid: str) -> Phase:
        return self._phase


def _pickled(question: Any) -> bytes:
    written = io.BytesIO()
    _Pickler(written).dump(question)
    return written.getvalue()


# In the loader


def _load(connection: "Connection", phase: Phase, for_server_database: bool) -> None:
    """Who is forked returns from here, and ends as a process ends that was spawned."""
    loader = os.getpid()
    _import_program(for_server_database=for_server_database)
    keep = cache(_keep)  # once
    while True:
        try:
            question = _Unpickler(connection.recv_bytes(), phase).load()
        except EOFError:
            os._exit(0)
        if isinstance(question, int):
            keep()  # while another process works
            os.waitpid(question, 0)
            question = None
        if question is None:
            connection.send(None)
            continue
        target, arguments = question
        if target is not _tell:
            keep()
        told, telling = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(telling)
            os.read(told, 1)  # it may have something to say itself, but not before its pid was told
            os.close(told)
            break
        connection.send(pid)
        os.close(telling)
        os.close(told)
    if target is _tell:
        arguments = (connection, *arguments)
    else:
        connection.close()
    _end_with(loader)
    target(*arguments)


def _import_program(*, for_server_database: bool) -> None:
    """What workers need, and what prepares a start."""
    gc.disable()  # nothing of a program that is being loaded is garbage
    from tokenserver.cli.left_out import without_docstrings, without_packages

    # OpenTelemetry: for measurements of redis-py's that we don't take, 3 MB
    with without_packages("opentelemetry"), without_docstrings(but_of="tokenserver"):
        # Each worker would have for itself what it loads for itself. First those that tell type checkers most: what
        # is freed of them is room for the others.
        import redis  # noqa: F401
        from sqlalchemy.orm import configure_mappers

        clear_overloads()
        import prometheus_client  # noqa: F401
        from flask_sqlalchemy import cli  # noqa: F401

        from tokenserver import app, first_start  # noqa: F401
        from tokenserver.cli import http_server, server  # noqa: F401
        from tokenserver.oauth.endpoints import waiting  # noqa: F401
        from tokenserver.tokens import multi_buffer, revocation_watch  # noqa: F401
        from tokenserver.tokens.signing_key import generate_pem, load_pem

        if for_server_database:
            from tokenserver.storage import connections  # noqa: F401
        else:
            from sqlalchemy.dialects import sqlite  # noqa: F401
        configure_mappers()
        multi_buffer.found()
    # OpenSSL makes 2 MB of tables when it is first used.
    load_pem("ES256", generate_pem("ES256")).signer.sign(b"")


def _keep() -> None:
    """What is loaded as it is: who is forked from now on shares it, and goes on sharing what it only uses."""
    gc.collect()
    make_immortal()
    gc.freeze()  # a collection writes to whatever it looks at
    gc.enable()


# In who was forked


def _end_with(loader: int) -> None:
    """A worker whose server was killed would keep the port and answer on with nobody to stop it."""
    serve = parent_process()
    parents = {loader, serve.pid if serve else None}

    def watch() -> None:
        while os.getppid() in parents:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _tell(connection: "Connection", work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        connection.send((work(*arguments), None))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised there
        driver_error = getattr(error.__cause__, "orig", None)
        if isinstance(error, StoreUnavailable) and driver_error is not None:
            error.private = f"{error.store}: {driver_error}"  # a cause isn't pickled
        connection.send((None, error))
