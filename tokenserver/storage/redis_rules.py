"""What Redis has to be like, embedded or not, before anything is decided on its word."""

from typing import Any, Final

import redis

from tokenserver.errors import ConfigurationError
from tokenserver.storage.redis import RedisStore

MIN_VERSION: Final = (6, 2)
KEEPS: Final = "noeviction"
# What the server and its scripts send to every Redis, in the shortest form that Redis takes; KEY stands for a key.
# A Cluster sees ASKING and CLUSTER SLOTS too, a database other than 0 SELECT.
COMMANDS: Final = (
    *("PING", "INFO", "TIME", "EVAL x 0", "EVALSHA x 0"),
    *("GET KEY", "SET KEY x", "DEL KEY", "EXISTS KEY", "PEXPIREAT KEY 1"),
    *("HGET KEY x", "HSET KEY x x", "HMGET KEY x"),
    *("XADD KEY * x x", "XLEN KEY", "XRANGE KEY - +", "XTRIM KEY MAXLEN 1"),
)

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


def permission_fault(store: RedisStore) -> Fault | None:
    """Commands that the user of the URL may not send: an outage when they are needed, which is seldom at once.

    They are put into transactions that are never executed: Redis looks at permissions when it queues.
    """
    refused = {name for bucket in store.buckets for name in _refused(store, bucket)}
    if not refused:
        return None
    return (
        f"the user of Redis may not use {', '.join(sorted(refused))}",
        "grant what docs/deploy/redis/users.acl.template has, and reload it (`redis-cli ACL LOAD`)",
    )


def _refused(store: RedisStore, bucket: int) -> list[str]:
    def queue(client: redis.Redis) -> list[str]:
        connection: Any = client.connection_pool.get_connection()
        try:
            found = [name for name in ("MULTI", "EXEC") if _is_refused(connection, name)]
            if not found:
                connection.send_command("MULTI")
                connection.read_response()
                commands = (command.replace("KEY", f"ts:{{{bucket}}}:permissions") for command in COMMANDS)
                found = [command.split()[0] for command in commands if _is_refused(connection, *command.split())]
            return found
        finally:
            connection.disconnect()  # which ends the transaction, instead of one more command
            client.connection_pool.release(connection)

    return store.ask_unverified(bucket, queue)[1]


def _is_refused(connection: Any, *command: str) -> bool:
    connection.send_command(*command)
    try:
        connection.read_response()
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError:
        return False  # permitted, and refused for another reason, which others look at
    return False


def require(store: RedisStore) -> None:
    """Raises ConfigurationError, StoreUnavailable."""
    for fault in (version_fault(store), eviction_fault(store), permission_fault(store)):
        if fault:
            raise ConfigurationError(": ".join(fault))
