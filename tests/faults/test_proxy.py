"""The proxy injects what it says, and nothing else."""

import contextlib
import socket
import threading

import pytest

from tests.faults.proxy import FaultProxy, Odds


@pytest.fixture
def echo():
    """The address of a program that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection):
            with contextlib.suppress(OSError), connection:
                while heard := connection.recv(65536):
                    connection.sendall(heard)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo):
    with FaultProxy(echo, seed=1) as running:
        yield running


def say(proxy, word=b"hello", seconds=20):
    """What comes back: b"" for an end, None for nothing within `seconds`."""
    with socket.create_connection(proxy.address, timeout=seconds) as connection:
        try:
            connection.sendall(word)
            return connection.recv(65536)
        except TimeoutError:
            return None
        except OSError:
            return b""


def test_without_faults_everything_arrives(proxy):
    assert [say(proxy, word) for word in (b"one", b"two")] == [b"one", b"two"]
    assert proxy.connections == 2
    assert not proxy.faults


@pytest.mark.parametrize(
    ("odds", "heard", "fault"),
    [
        (Odds(cut=1), b"", "answer cut"),
        (Odds(torn=1), {b"he", b""}, "answer torn"),  # the end may overtake what came before it
        (Odds(late=1, late_seconds=(0.01, 0.02)), b"hello", "answer late"),
    ],
)
def test_faults_of_answers(proxy, odds, heard, fault):
    proxy.answers = odds
    assert say(proxy) in (heard if isinstance(heard, set) else {heard})
    assert proxy.faults == {fault: 1}
    proxy.answers = Odds()
    assert say(proxy) == b"hello"


def test_a_lost_answer_never_comes_and_the_connection_stays(proxy):
    proxy.answers = Odds(lost=1)
    assert say(proxy, seconds=0.3) is None


def test_stalled_refusing_and_cut(proxy):
    with socket.create_connection(proxy.address, timeout=20) as kept:
        kept.sendall(b"a")
        assert kept.recv(10) == b"a"
        proxy.stalled = True
        kept.sendall(b"b")
        kept.settimeout(0.3)
        with pytest.raises(TimeoutError):
            kept.recv(10)
        kept.settimeout(20)
        proxy.stalled = False
        assert kept.recv(10) == b"b"
        proxy.refusing = True
        assert say(proxy) == b""
        proxy.cut()
        with contextlib.suppress(ConnectionResetError):
            assert kept.recv(10) == b""
    proxy.refusing = False
    assert say(proxy) == b"hello"


def test_nonsense_instead_of_the_other_program(proxy):
    proxy.garbage = b"nonsense"
    assert say(proxy) == b"nonsense"


def test_the_same_seed_gives_the_same_faults(echo):
    def run(seed):
        with FaultProxy(echo, seed=seed) as proxy:
            proxy.answers = Odds(cut=0.5)
            return [say(proxy) for _ in range(20)]

    assert run(7) == run(7)
    assert run(7) != run(8)
