"""Listeners for what is fetched."""

from tests.listeners import authority, listen, names

__all__ = ["authority", "listen", "names"]
