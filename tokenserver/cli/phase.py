"""What a node is at: serving, draining, stopping. Its processes share it."""

from ctypes import c_byte
from multiprocessing import get_context

_SERVING, _DRAINING, _STOPPING = range(3)


class Phase:
    """A loader gets it when it is spawned, and hands it on to the workers."""

    def __init__(self) -> None:
        spawning = get_context("spawn")
        self._value = spawning.RawValue(c_byte, _SERVING)
        self._loaded = spawning.RawValue(c_byte, False)

    def drain(self) -> None:
        self._value.value = _DRAINING

    def stop(self) -> None:
        self._value.value = _STOPPING

    def loaded(self) -> None:
        """Says a worker whose application is there."""
        self._loaded.value = True

    @property
    def has_loaded(self) -> bool:
        """Whether any worker ever has."""
        return bool(self._loaded.value)

    @property
    def is_draining(self) -> bool:
        """Or past it."""
        return bool(self._value.value != _SERVING)

    @property
    def is_stopping(self) -> bool:
        return bool(self._value.value == _STOPPING)
