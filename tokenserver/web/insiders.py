"""Who may see how the server is: metrics, and the details of `/readyz`.

Whoever knows the token of `TOKENSERVER_METRICS_TOKEN`. Without such a token: in development, whoever asks from this
very machine; in production nobody, since there a proxy on the same machine would make everybody look like that.
"""

import hmac
import ipaddress

from flask import request

from tokenserver.config import Settings
from tokenserver.web.request_context import current

# What a proxy adds that nobody told this server of.
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class Insiders:
    def __init__(self, settings: Settings) -> None:
        self._token = settings.metrics_token
        self._trusts_machine = settings.env == "development" and not settings.metrics_token
        self._has_proxies = settings.trusted_proxies > 0

    def includes_caller(self) -> bool:
        if self._token:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            return scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self._token.encode())
        return self._trusts_machine and self._is_from_here()

    def _is_from_here(self) -> bool:
        if not self._has_proxies and any(name in request.headers for name in FORWARDED):
            return False
        address = current().address
        return address is not None and ipaddress.ip_address(address).is_loopback
