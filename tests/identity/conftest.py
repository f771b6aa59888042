"""Listeners for what is looked up, and a mail server."""

from tests.listeners import listen
from tests.smtp_server import smtp

__all__ = ["listen", "smtp"]
