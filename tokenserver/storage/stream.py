"""Streams of Redis whose entries are carried into SQL, and are there until they were."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, cast

from tokenserver.storage.feed import Feed
from tokenserver.storage.redis import RedisReplaced, UnknownContent

logger = logging.getLogger("tokenserver.storage")

Item = tuple[str, dict[str, str]]  # the id, which names its place in the stream, and the fields

LAST: Final = (1 << 64) - 1


def carry(feed: Feed, bucket: int, key: str, limit: int, work: Callable[[list[Item]], None]) -> int:
    """Hand the first entries to `work`, and remove them when it returns: how many, at most `limit`. Whoever does so
    at the same moment, or goes on where one was killed midway, is handed the same. Raises StoreUnavailable, and
    what `work` raises."""
    try:
        items = feed.store.ask(bucket, lambda c: cast("list[Item]", c.xrange(key, count=limit)))
        if items:
            work(items)
            # Ids only grow: nothing can have come before the last of them meanwhile.
            rest = _successor(items[-1][0])
            feed.store.ask(bucket, lambda c: c.xtrim(key, minid=rest, approximate=False))
    except RedisReplaced:
        feed.sync(bucket)
        return 0
    except UnknownContent:
        logger.error("%s in Redis isn't as this server writes it and begins anew", key)  # noqa: TRY400
        feed.store.ask(bucket, lambda c: c.delete(key))
        return 0
    return len(items)


def after(item_id: str, items: Sequence[Item]) -> Sequence[Item]:
    """Those of them, in their order, that came after it."""
    return items[bisect_right(items, order(item_id), key=lambda item: order(item[0])) :]


def order(item_id: str) -> tuple[int, int]:
    milliseconds, _, counter = item_id.partition("-")
    return int(milliseconds), int(counter)


def _successor(item_id: str) -> str:
    milliseconds, counter = order(item_id)
    return f"{milliseconds}-{counter + 1}" if counter < LAST else f"{milliseconds + 1}-0"
