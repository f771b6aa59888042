"""Listeners for what is looked up."""

from tests.listeners import listen

__all__ = ["listen"]
