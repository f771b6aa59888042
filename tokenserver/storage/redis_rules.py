"""What Redis has to be like, embedded or not, before anything is decided on its word."""

from typing import Final

from tokenserver.errors import ConfigurationError
from tokenserver.storage.redis import RedisStore

MIN_VERSION: Final = (6, 2)
KEEPS: Final = "noeviction"

Fault = tuple[str, str]  # what is wrong, what to do


def version_fault(store: RedisStore) -> Fault | None:
    needed = ".".join(map(str, MIN_VERSION))
    for info in store.info("server"):
        found = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < MIN_VERSION:
            todo = "install a later one, or set TOKENSERVER_REDIS_URL to one"
            return f"Redis is {found}, older than {needed}", todo
    return None


def eviction_fault(store: RedisStore) -> Fault | None:
    """From INFO, because hosted Redis often refuses CONFIG."""
    policies = [info.get("maxmemory_policy", KEEPS) for info in store.info("memory")]
    policy = next((each for each in policies if each != KEEPS), None)
    if policy is None:
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
