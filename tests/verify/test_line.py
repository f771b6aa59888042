"""A request that waits for its answer can be cut short, over TLS as without."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.tls_front import listen, tls_front
from tests.verify.conftest import KeyServer
from tokenserver.verify.https import fetch_newer
from tokenserver.verify.line import Line

PATIENCE = 30


@pytest.fixture(params=["http", "https"])
def origin(
    request: pytest.FixtureRequest, key_server: KeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "http":
            yield key_server.url
            return
        authority = Authority(tmp_path / "ca")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        listener, url = listen()
        stack.enter_context(tls_front(authority.server(), listener, urlsplit(key_server.url).port or 0))
        yield url


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_cut_while_it_waits(origin: str, key_server: KeyServer) -> None:
    line, answered, errors = Line(), threading.Event(), []

    def fetch() -> None:
        try:
            fetch_newer(f"{origin}/jwks", '"x"', line, timeout=PATIENCE, limit=1000, wait=PATIENCE)
        except (OSError, HTTPException) as error:
            errors.append(error)

    key_server.before = lambda: answered.wait(PATIENCE)
    thread = threading.Thread(target=fetch)
    thread.start()
    until(lambda: key_server.fetches)
    line.cut()
    thread.join(PATIENCE)
    answered.set()
    assert len(errors) == 1
    assert key_server.sent[0]["Prefer"] == f"wait={PATIENCE}"
    # It stays so.
    with pytest.raises(OSError, match="cut"):
        fetch_newer(f"{origin}/jwks", None, line, timeout=PATIENCE, limit=1000)
    assert key_server.fetches == 1


def test_nothing_is_held_once_it_was_answered(origin: str, key_server: KeyServer) -> None:
    key_server.serve([], Preference_Applied="Wait=5")
    line = Line()
    for _ in range(2):
        document = fetch_newer(f"{origin}/jwks", None, line, timeout=PATIENCE, limit=1000)
        assert document is not None
        assert document.waits
        assert line._held is None
    line.cut()
