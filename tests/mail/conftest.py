"""A mail server, and certificates for it."""

from tests.listeners import authority
from tests.smtp_server import smtp

__all__ = ["authority", "smtp"]
