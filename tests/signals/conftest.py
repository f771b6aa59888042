from tests.listeners import listen

__all__ = ["listen"]
