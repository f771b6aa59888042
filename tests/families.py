"""Refresh families in Redis, as somebody with its password sees them."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.client import NEVER_DECODE

from tests.redis_access import raw_redis
from tokenserver.rooms import Rooms
from tokenserver.tokens.family_hash import FIELDS, FamilyHash

Fields = dict[Any, Any]


@dataclass
class Writer:
    """Reads and writes past the server: fields are bytes."""

    rooms: Rooms

    @property
    def redis(self) -> Any:
        return raw_redis(self.rooms.store)

    def family_id(self, token: str) -> UUID:
        parsed = self.rooms.refresh_tokens.parse(token)
        assert parsed is not None
        return parsed[0]

    def key(self, family: str | UUID) -> str:
        """`family`: its id, or one of its tokens."""
        return self.rooms.feed.family_key(family if isinstance(family, UUID) else self.family_id(family))

    def fields(self, family: str | UUID) -> Fields:
        return dict(self.redis.execute_command("HGETALL", self.key(family), **{NEVER_DECODE: True}))

    def write(self, family: str | UUID, fields: Fields) -> None:
        """In the place of what is there."""
        self.redis.delete(self.key(family))
        self.redis.hset(self.key(family), mapping=fields)

    def read(self, family: str | UUID) -> FamilyHash:
        fields = self.fields(family)
        return FamilyHash.read([fields.get(name.encode()) for name in FIELDS])

    def alter(self, family: str | UUID, **changed: Any) -> None:
        """A part of what is there: `generation`, `rotated_at`, `epoch`, `mac`."""
        self.redis.hset(self.key(family), "s", self.read(family)._replace(**changed).state())

    def age(self, family: str | UUID, ms: int) -> None:
        """Let the last rotation lie further back."""
        self.alter(family, rotated_at=self.read(family).rotated_at - ms)
