"""How a refresh family lies in Redis (ADR 0030): a hash of `s`, its state, and `f`, the family itself.

`rotate.lua` and `restore.lua` read and write the same. A third field, `d`, says that it ended.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

FIELDS: Final = ("s", "f", "d")
# Generation, rotated at (ms since 1970), epoch, MAC.
STATE: Final = struct.Struct(">I6s4s16s")


class FamilyHash(NamedTuple):
    """What somebody wrote there. `mac`: empty where nothing is, or nothing of this form."""

    packed: bytes = b""
    generation: int = 0
    rotated_at: int = 0
    epoch: bytes = b""
    mac: bytes = b""
    ended: bool = False

    @classmethod
    def read(cls, values: Sequence[bytes | None]) -> "FamilyHash":
        """Of FIELDS, from whoever wrote them."""
        state, packed, ended = values
        if state is None or len(state) != STATE.size:
            return cls(ended=ended is not None)
        generation, rotated_at, epoch, mac = STATE.unpack(state)
        return cls(packed or b"", generation, int.from_bytes(rotated_at), epoch, mac, ended is not None)

    def state(self) -> bytes:
        return STATE.pack(self.generation, self.rotated_at.to_bytes(6), self.epoch, self.mac)


def short(epoch: str) -> bytes:
    """Of the word in SQL, which is random: 32 bits tell one from another."""
    return zlib.crc32(epoch.encode()).to_bytes(4)
