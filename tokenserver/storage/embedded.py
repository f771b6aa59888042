"""The embedded Redis: a child of ours on a private unix socket, its append-only file in the data folder.

Owns that one owner at a time runs it, that it lives as long as its owner, and that it ends with it.
`storage.redis_server` knows the program; `storage.redis` connects.
"""

import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError
from tokenserver.storage.redis_server import ENDING, Program, end_orphan, is_answering, read_log

log = logging.getLogger(__name__)

PATIENCE: Final = 5.0  # seconds that a start waits for another owner, and a command for the others before it stops
LOADING: Final = 300.0  # seconds that a start may take; only a very large append-only file needs more than one
FIRST_DELAY: Final = 0.1  # seconds before a restart, doubled each time that it dies again soon
LONGEST_DELAY: Final = 5.0
LOG_BYTES: Final = 1 << 20


class DataFolderInUse(ConfigurationError):
    pass


class EmbeddedRedis:
    """The Redis of one data folder, from `start` to `stop`; restarted if it dies in between.

    One thread does every spawn and lives as long as the child: the kernel's death signal follows the thread that
    forked, not the process. A copy of this object in a forked process owns nothing, and its `stop` does nothing.
    """

    def __init__(self, data_dir: Path, *, patience: float = PATIENCE) -> None:
        self.data_dir = data_dir.absolute()
        self.socket = Settings(data_dir=self.data_dir).redis_socket
        self.log_file = self.data_dir / "redis.log"
        self._patience = patience
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._is_over = threading.Event()  # whether no thread supervises a child
        self._is_over.set()
        release = weakref.WeakMethod(self._release)

        def disown_copy() -> None:
            if method := release():
                method()

        os.register_at_fork(after_in_child=disown_copy)

    @property
    def pid(self) -> int | None:
        """Of the redis-server; None before the start, after the stop, and until a dead one is replaced."""
        child = self._child
        return child.pid if child and child.returncode is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the data is loaded and commands are answered.

        Raises ConfigurationError, and leaves nothing running, if another owner holds the data folder or the server
        doesn't come up.
        """
        if self._lock is not None:
            return
        program = Program.find()
        program.check_files(self.data_dir)
        _make_private(self.data_dir, self.socket.parent)
        self._lock = self._take_lock()
        try:
            end_orphan(self.data_dir, self.socket)
            for leftover in self.data_dir.glob("temp-*.aof"):  # of a rewrite that was killed
                leftover.unlink(missing_ok=True)
            self._stopping.clear()
            ready: Future[None] = Future()
            work = (program, ready)
            threading.Thread(target=self._supervise, args=work, name="embedded-redis", daemon=True).start()
            ready.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Every acknowledged write is on disk when this returns."""
        if self._lock is None:
            return
        self._stopping.set()
        for number, seconds in ((signal.SIGTERM, ENDING), (signal.SIGKILL, None)):
            if self._child:
                self._child.send_signal(number)
            if self._is_over.wait(seconds):
                break
        if self._child:
            self.socket.unlink(missing_ok=True)
        self._child = None
        self._release()

    def _take_lock(self) -> int:
        lock = os.open(self.data_dir / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock_within(lock, self._patience):
            holder = os.read(lock, 20).decode()
            os.close(lock)
            raise DataFolderInUse(
                f"another tokenserver (pid {holder}) is using {self.data_dir.name}: stop it, or set "
                "TOKENSERVER_DATA_DIR or TOKENSERVER_REDIS_URL"
            )
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        return lock

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)  # in a forked process this leaves the lock with the owner

    def _supervise(self, program: Program, ready: "Future[None]") -> None:
        self._is_over.clear()
        try:
            # A start may be interrupted while it waits for this thread, which then comes after `stop`.
            if not self._stopping.is_set():
                self._keep_running(program, ready)
        finally:
            self._is_over.set()

    def _keep_running(self, program: Program, ready: "Future[None]") -> None:
        try:
            child = self._launch(program)
        except BaseException as error:  # noqa: BLE001 - whatever it is, start() raises it
            ready.set_exception(error)
            return
        ready.set_result(None)
        delay, reason = 0.0, ""
        while True:
            since = time.monotonic()
            status = child.wait()
            if self._stopping.is_set():
                return
            died_soon = time.monotonic() - since < 10 * LONGEST_DELAY
            delay = min(max(2 * delay, FIRST_DELAY), LONGEST_DELAY) if died_soon else FIRST_DELAY
            log.warning("redis-server: %s; starting it again in %.1f s", reason or f"ended with {status}", delay)
            if self._stopping.wait(delay):
                return
            try:
                child, reason = self._launch(program), ""
            except (ConfigurationError, OSError) as error:
                reason = str(error)

    def _launch(self, program: Program) -> "subprocess.Popen[bytes]":
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self.log_file.touch(mode=0o600)
        with self.log_file.open("ab") as output:
            offset = output.tell()
            child = self._child = subprocess.Popen(
                program.command(self.data_dir, self.socket, self.log_file),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # the terminal's Ctrl-C must not reach it before the workers have finished
                umask=0o077,
            )
        if self._stopping.is_set():  # stop() may not have seen this child
            child.terminate()
        deadline = time.monotonic() + LOADING
        while not is_answering(self.socket):
            if child.poll() is not None:
                raise ConfigurationError(program.fault(read_log(self.log_file, offset), self.data_dir))
            if time.monotonic() > deadline:
                child.kill()
                child.wait()
                raise ConfigurationError(f"redis-server did not answer within {LOADING:.0f} s; see {self.log_file}")
            time.sleep(0.005)
        for line in read_log(self.log_file, offset):
            if "Truncating the AOF" in line:
                log.warning("redis-server: the append-only file ended in the middle of a write: %s", line)
        return child


@contextmanager
def attach_or_start(settings: Settings) -> Iterator[None]:
    """For commands: the Redis of the running server, or else one for the duration of the block.

    Commands that run at the same moment share one: who started it waits PATIENCE for the others before stopping it.
    """
    if not settings.embedded_redis:
        yield
        return
    _make_private(settings.data_dir, settings.redis_socket.parent)
    with ExitStack() as stack:
        users = os.open(settings.data_dir / "redis.users", os.O_RDWR | os.O_CREAT, 0o600)
        stack.callback(os.close, users)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while another command is stopping its own
        deadline = time.monotonic() + PATIENCE
        while not is_answering(settings.redis_socket):
            try:
                stack.enter_context(EmbeddedRedis(settings.data_dir, patience=0.1))
            except DataFolderInUse:  # the server is just starting, or just ending
                if time.monotonic() > deadline:
                    raise
            else:
                stack.callback(_lock_within, users, PATIENCE)
                break
        yield


def _lock_within(file: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _make_private(data_dir: Path, socket_folder: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket_folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{error.filename} can't be made: {error.strerror}") from None
    found = socket_folder.lstat()  # under the shared temporary folder somebody else may have been first
    if socket_folder != data_dir and (found.st_uid != os.getuid() or found.st_mode & 0o170077 != 0o040000):
        raise ConfigurationError(f"{socket_folder} must be a folder that only this user can enter: remove it")
