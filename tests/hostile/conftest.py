"""What the addresses of hostile clients lead to."""

from tests.listeners import listen

__all__ = ["listen"]
