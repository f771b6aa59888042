"""The process that loads the program: what it forks shares nothing that lives, and is ours when it has ended."""

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, processes, wait_until
from tokenserver.cli import immortal
from tokenserver.cli.loader import Forked, Loader, LoaderEnded
from tokenserver.cli.phase import Phase


def children_of(pid: int) -> list[int]:
    return [child for child, (parent, _) in processes().items() if parent == pid]


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    with Loader(Phase(), for_server_database=False) as loader:
        loader.wait()
        yield loader


@pytest.fixture
def sleeper(loader: Loader) -> Iterator[int]:
    """A process that was forked, and does nothing."""
    pid = loader.fork(time.sleep, (600,))
    yield pid
    os.kill(pid, signal.SIGKILL)


def test_the_program_is_there_but_not_what_only_a_start_needs(loader: Loader):
    found = loader.apart(eval, "{name.partition('.')[0] for name in __import__('sys').modules}")
    assert {"flask", "sqlalchemy", "redis", "httptools", "joserfc", "tokenserver"} <= found
    later = {"alembic", "psycopg2", "webauthn", "segno"}
    never = {"opentelemetry", "granian"}
    assert all(importlib.util.find_spec(name) for name in later | never)
    assert found & (later | never) == set()


def test_making_an_application_loads_nothing_more(loader: Loader, tmp_path: Path):
    """Each worker would have it for itself."""
    settings = f"app.Settings(data_dir=app.Path({str(tmp_path)!r}), keys_dir=app.Path({str(tmp_path)!r}))"
    done = (
        "app := __import__('tokenserver.app').app",
        "modules := __import__('sys').modules",
        "before := set(modules)",
        "app.shared.enter(None)",
        f"app.rooms_of(app.create_app({settings})).database.read(lambda tx: tx.connection().closed)",
        "set(modules) - before",
    )
    assert loader.apart(eval, f"[{', '.join(done)}][-1]") == set()


def test_no_thread_runs_and_nothing_is_open_but_pipes(sleeper: int):
    """What a fork would share: connections, files, locks on them, and locks that a thread holds."""
    own = Path(f"/proc/{sleeper}")
    wait_until(lambda: len(list((own / "task").iterdir())) == 2)  # itself, and what looks after its parents
    opened = {each.name: str(each.readlink()) for each in (own / "fd").iterdir() if int(each.name) > 2}
    others = {name: what for name, what in opened.items() if not what.startswith("pipe:") and what != os.devnull}
    inherited = {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()}
    assert set(others.values()) - inherited == set()


def test_who_uses_what_was_loaded_goes_on_sharing_it(loader: Loader):
    """Where Python leaves the references to some objects uncounted."""
    loader.apart(divmod, 7, 2)  # what is loaded is kept while another process works
    used = loader.apart(eval, "__import__('tests.cli.test_loader', fromlist=['*']).kilobytes_written_by_using()")
    assert (used < 800) if sys.version_info[:2] in immortal.VERSIONS else (used > 4000)


def kilobytes_written_by_using() -> int:
    """Of pages that were shared, by a reference more to each object that was there before the fork."""

    def own() -> int:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty"))

    gc.disable()
    gc.unfreeze()
    before = own()
    objects = gc.get_objects()
    written = own() - before
    return written - sys.getsizeof(objects) // 1024


FORK = """
import json, os, signal, time
from pathlib import Path
from tokenserver.cli.loader import Loader
from tokenserver.cli.phase import Phase

signal.signal(signal.SIGTERM, lambda *_: None)
with Loader(Phase(), for_server_database=False, is_fork=True) as loader:
    handler = loader.apart(eval, "str(__import__('signal').getsignal(15))")
    sleeper = loader.fork(time.sleep, (600,))
    while len(os.listdir(f"/proc/{sleeper}/task")) < 2:  # itself, and what looks after its parents
        time.sleep(0.01)
    opened = {each.name: str(each.readlink()) for each in Path(f"/proc/{sleeper}/fd").iterdir()}
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    os.kill(sleeper, signal.SIGKILL)
shared = sum(int(line.split()[1]) for line in rollup if line.startswith("Shared_Dirty"))
print(json.dumps([handler, opened, shared]))
"""


def test_a_fork_of_serve_shares_what_it_had_loaded_and_nothing_that_lives():
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    handler, opened, shared = json.loads(done.stdout)
    assert handler == str(signal.SIG_DFL)
    others = [what for name, what in opened.items() if int(name) > 2]
    phase = [what for what in others if what.startswith("/dev/shm/") and what.endswith("(deleted)")]
    assert len(phase) <= 2
    assert all(what.startswith("pipe:") or what == os.devnull for what in others if what not in phase)
    assert shared > (5000 if sys.version_info[:2] in immortal.VERSIONS else 1500)  # KB


def test_who_is_forked_draws_random_numbers_of_its_own(loader: Loader):
    """OpenSSL was used before the fork: with the same state of its generator, two workers would sign with the same
    nonce, and give the key away."""
    drawn = (
        "__import__('tokenserver.tokens.signing_key', fromlist=['*']).generate_pem('ES256')",
        "__import__('tokenserver.random_bytes', fromlist=['*']).random_bytes()",
        "__import__('secrets').token_bytes()",
        "__import__('random').random()",
    )
    first, second, third = (loader.apart(eval, f"[{', '.join(drawn)}]") for _ in range(3))
    assert all(len(set(each)) == 3 for each in zip(first, second, third, strict=True))


def test_what_is_done_apart_returns_raises_or_vanishes(loader: Loader):
    assert loader.apart(divmod, 7, 2) == (3, 1)
    assert loader.apart(os.getpid) != loader.apart(os.getpid)
    with pytest.raises(ZeroDivisionError):
        loader.apart(divmod, 7, 0)
    with pytest.raises(LoaderEnded):
        loader.apart(os._exit, 0)
    assert loader.apart(divmod, 9, 2) == (4, 1)


def test_what_is_done_apart_ends_when_the_call_does(loader: Loader):
    parent = loader.apart(os.getppid)

    def interrupt() -> None:
        wait_until(lambda: children_of(parent))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        loader.apart(time.sleep, 600)
    thread.join()
    assert children_of(parent) == []
    assert loader.apart(divmod, 7, 2) == (3, 1)


def test_who_was_forked_is_ours_when_the_loader_ended():
    phase = Phase()
    loader = Loader(phase, for_server_database=False)
    forked = ((sys.exit, (7,)), (Phase.drain, (phase,)), (time.sleep, (600,)))
    failed, drainer, sleeper = (Forked(loader.fork(target, arguments)) for target, arguments in forked)
    assert not failed.has_ended()  # or not for us to know: it is the loader's
    loader.close()
    assert processes()[sleeper.pid][0] == os.getpid()
    assert not sleeper.has_ended()
    sleeper.kill()
    wait_until(sleeper.has_ended)
    sleeper.terminate()  # whose pid may be somebody else's by now
    failed.join()
    drainer.join()
    assert (failed.exitcode, drainer.exitcode, sleeper.exitcode) == (7, 0, -signal.SIGKILL)
    assert phase.is_draining
    with pytest.raises(LoaderEnded):
        loader.fork(time.sleep, (600,))


def test_a_start_that_is_killed_leaves_nothing_behind(deployment: Deployment):
    """While the program is being loaded."""
    with deployment.serve() as server:
        wait_until(lambda: any("redis" not in command for command in server.commands()))
        family = server.family()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not processes().keys() & set(family))
