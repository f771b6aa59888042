"""What Redis alone keeps for a while, and is found by a secret that is stored nowhere: its digest is in the key."""

from collections.abc import Callable
from typing import Any, Final

from tokenserver.errors import StoreUnavailable
from tokenserver.storage.feed import Feed
from tokenserver.storage.redis import RedisReplaced

TRIES: Final = 2


class Shelf:
    """`letter`: of its keys."""

    def __init__(self, feed: Feed, letter: str) -> None:
        self._feed = feed
        self._letter = letter

    def ask(self, digest: str, question: Callable[[Any, str], Any]) -> Any:
        """`question`: gets a client of Redis and the key, and sends one command, perhaps more than once.

        Raises StoreUnavailable, UnknownContent.
        """
        store = self._feed.store
        bucket = store.bucket_of(digest)
        key = f"ts:{{{bucket}}}:{self._letter}:{digest}"
        for _ in range(TRIES):
            try:
                return store.ask(bucket, lambda client: question(client, key))
            except RedisReplaced:
                self._feed.sync(bucket)
        raise StoreUnavailable("redis", "replaced just now")
