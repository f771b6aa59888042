"""What Redis has to be like, embedded or not, before anything is decided on its word."""

from typing import Final

from tokenserver.errors import ConfigurationError
from tokenserver.storage.redis import RedisStore

MIN_VERSION: Final = (6, 2)
KEEPS: Final = "noeviction"

Fault = tuple[str, str]  # what is wrong, what to do


def version_fault(store: RedisStore) -> Fault | None:
    found = str(store.info("server").get("redis_version", "0"))
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) >= MIN_VERSION:
        return None
    needed = ".".join(map(str, MIN_VERSION))
    return f"Redis is {found}, older than {needed}", "install a later one, or set TOKENSERVER_REDIS_URL to one"


def eviction_fault(store: RedisStore) -> Fault | None:
    """From INFO, because hosted Redis often refuses CONFIG."""
    policy = store.info("memory").get("maxmemory_policy", KEEPS)
    if policy == KEEPS:
        return None
    # A full Redis would forget revocations and accept revoked tokens again.
    return (
        f"maxmemory-policy of Redis is {policy}, so it would forget revocations when it is full",
        f"set it to {KEEPS} (`redis-cli CONFIG SET maxmemory-policy {KEEPS}`, and in its configuration file)",
    )


def require(store: RedisStore) -> None:
    """Raises ConfigurationError, StoreUnavailable."""
    for fault in (version_fault(store), eviction_fault(store)):
        if fault:
            raise ConfigurationError(": ".join(fault))
