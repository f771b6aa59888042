"""How often a client may ask, and fail to prove who it is."""

import hashlib
import math
import time
from typing import Final

from tokenserver.clients.registry import Client
from tokenserver.config import Settings
from tokenserver.errors import TooManyRequests
from tokenserver.storage.cache import Cache
from tokenserver.web.rate_limit import Limit, RateLimits, network_of
from tokenserver.web.request_context import current

# Clients that share a network, as behind an egress proxy.
CLIENTS_OF_A_NETWORK: Final = 10
REMEMBERED: Final = 10_000


class ClientLimits:
    def __init__(self, limits: RateLimits, settings: Settings) -> None:
        self._limits = limits
        rates = {
            "token": settings.limit_token,
            "introspection": settings.limit_introspection,
            "revocation": settings.limit_revocation,
        }
        self._asked = {name: Limit.of(name, rate) for name, rate in rates.items()}
        failed = settings.limit_client_authentication
        self._failed = Limit.of("client-authentication", failed)
        many = failed._replace(quota=failed.quota * CLIENTS_OF_A_NETWORK)
        self._blocked_until: Cache[bytes, float] = Cache(REMEMBERED)
        self._failed_of_network = Limit.of("client-authentication-network", many)

    def take(self, endpoint: str, client: Client) -> None:
        """Of who has proved to be the client. A public client proves nothing: what one of its users takes must be
        missed by nobody else. Raises TooManyRequests."""
        subject = client.client_id
        if not client.is_confidential:
            subject = f"{network_of(current().address)} {subject}"
        self._limits.take_here(self._asked[endpoint], subject)

    def require_trust(self, client_id: str) -> None:
        """Whoever failed too often is not looked at. Asks nobody: a process learns it by `failed`.

        `client_id`: as it is presented. Raises TooManyRequests.
        """
        if not self._blocked_until:
            return
        for limit, subject in self._failures(client_id):
            wait = (self._blocked_until.get(_name(limit, subject)) or 0) - time.monotonic()
            if wait > 0:
                raise TooManyRequests(math.ceil(wait))

    def failed(self, client_id: str) -> None:
        """Raises TooManyRequests, StoreUnavailable."""
        if self._failed.name in current().quotas:
            return  # the same request, looked at again
        failures = self._failures(client_id)
        taken = self._limits.ask(*failures)
        if not taken.wait:
            return
        for (limit, subject), state in zip(failures, taken.states, strict=True):
            if not state.remaining:
                until = time.monotonic() + state.next_ms / 1000
                self._blocked_until.put(_name(limit, subject), until, self._blocked_until.ticket())
        raise TooManyRequests(taken.wait)

    def _failures(self, client_id: str) -> tuple[tuple[Limit, str], tuple[Limit, str]]:
        network = network_of(current().address)
        return (self._failed, f"{network} {client_id}"), (self._failed_of_network, network)


def _name(limit: Limit, subject: str) -> bytes:
    # Whatever length was presented.
    return hashlib.sha256(f"{limit.name} {subject}".encode("utf-8", "surrogatepass")).digest()
