"""How a start is interrupted."""

import signal
from collections.abc import Iterator

import pytest

from tokenserver.cli import workers


@pytest.fixture(autouse=True)
def heeding() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, workers._interruption.come)
    yield
    signal.signal(signal.SIGTERM, before)
    workers._interruption.is_waiting = False


def test_an_interruption_waits_for_what_is_not_to_be_left_half_made():
    done = []

    def make() -> None:
        with workers.uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("all")
        done.append("more")

    with pytest.raises(KeyboardInterrupt):
        make()
    assert done == ["all"]


def test_an_interruption_is_heeded_at_once_elsewhere_and_none_is_made_up():
    with workers.uninterrupted():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(ValueError, match="of its own"), workers.uninterrupted():
        raise ValueError("of its own")
