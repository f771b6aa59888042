"""Stores filled behind the server's back, by copying rows and hashes that it wrote itself as often as asked."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

import psycopg2
from hiredis import pack_command
from redis.client import NEVER_DECODE

from tokenserver.tokens.family_hash import FIELDS, FamilyHash
from tokenserver.tokens.refresh_family import Family

CHUNK: Final = 10_000
# The first digit of ids: SQL, Redis and Python make the same of a number.
USER, SESSION, FAMILY, ROLE = "a", "b", "c", "d"
STEM: Final = "0000000-0000-4000-8000-"
# KEYS: the streams of rotations and of events. ARGV: first number, last number, what ids of families begin with, an
# event, the time in ms
BACKLOG: Final = """
for i = ARGV[1], ARGV[2] do
  redis.call('XADD', KEYS[1], '*', 'f', ARGV[3] .. string.format('%012x', i), 'g', 2, 'r', ARGV[5])
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[4])
end
"""


def numbered(kind: str, number: int) -> UUID:
    return UUID(f"{kind}{STEM}{number:012x}")


def sql_id(kind: str) -> str:
    """The same in SQL, of the number `g`."""
    return f"('{kind}{STEM}' || lpad(to_hex(g), 12, '0'))::uuid"


@dataclass
class Filler:
    """`url`: of the database, as a superuser. `redis`: of the same deployment."""

    url: str
    redis: Any

    def copy(self, table: str, where: str, count: int, **columns: str) -> None:
        """The row found by `where`, with these columns computed from the number `g`. No foreign key is checked."""
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica; SET synchronous_commit = off")
            cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,))
            names = [name for (name,) in cursor.fetchall()]
            values = ", ".join(columns.get(name, f't."{name}"') for name in names)
            quoted = ", ".join(f'"{name}"' for name in names)
            source = f"{table} t, generate_series(1, {count}) g WHERE {where}"
            cursor.execute(f"INSERT INTO {table} ({quoted}) SELECT {values} FROM {source}")
        connection.close()

    def ask(self, query: str) -> Any:
        """The first value of the first row; of a statement without rows, None."""
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            found = cursor.fetchone()[0] if cursor.description else None
        connection.close()
        return found

    def people(self, username: str, template: Family, count: int, secret: bytes) -> None:
        """So many users like this one, each with a session and a family like this one, in SQL and in Redis.

        `secret`: of the ring, for the MACs of families.
        """
        user = f"t.username = '{username}'"
        of_user = f"t.user_id = (SELECT id FROM users t WHERE {user})"
        family, session = f"t.id = '{template.id}'", f"t.id = '{template.session_id}'"
        name, mail = "'person' || g", "'person' || g || '@example.org'"
        names = {"username": name, "username_key": name, "email": mail, "email_key": mail}
        person, sid, fid = sql_id(USER), sql_id(SESSION), sql_id(FAMILY)
        # In PostgreSQL, by several connections, while this process makes what Redis gets.
        with ThreadPoolExecutor() as pool:
            done = [
                pool.submit(self.copy, "users", user, count, id=person, **names),
                pool.submit(self.copy, "role_assignments", of_user, count, user_id=person),
                pool.submit(self.copy, "sessions", session, count, id=sid, user_id=person, cookie_digest="NULL"),
                pool.submit(self.copy, "refresh_families", family, count, id=fid, user_id=person, session_id=sid),
            ]
            self._families(template, count, secret)
            for each in done:
                each.result()
        self.ask("ANALYZE")

    def _families(self, template: Family, count: int, secret: bytes) -> None:
        [key] = self.redis.keys(f"ts:*:f:{template.id.hex}")
        stem = key.removesuffix(template.id.hex)
        found = FamilyHash.read(self.redis.execute_command("HMGET", key, *FIELDS, **{NEVER_DECODE: True}))
        left = self.redis.pttl(key)
        with _silent(self.redis) as connection:
            for first in range(1, count + 1, CHUNK):
                numbers = range(first, min(first + CHUNK, count + 1))
                connection.sendall(b"".join(_family(template, stem, found, left, secret, n) for n in numbers))
            # Answered when all before it was done.
            connection.sendall(pack_command(("CLIENT", "REPLY", "ON")))
            assert connection.recv(64) == b"+OK\r\n"

    def backlog(self, first: int, last: int, event: str, now_ms: int) -> None:
        """As if all these families had been refreshed at this moment, faster than it is carried into SQL."""
        stem = f"{FAMILY}{STEM}".replace("-", "")
        for start in range(first, last + 1, CHUNK):
            end = min(start + CHUNK - 1, last)
            self.redis.eval(BACKLOG, 2, "ts:{0}:rotations", "ts:{0}:events", start, end, stem, event, now_ms)

    def clients(self, client_id: str, count: int) -> None:
        """So many clients like this one, with its secret."""
        self.copy("clients", f"t.client_id = '{client_id}'", count, client_id="'client' || g")
        self.ask("ANALYZE clients")

    def roles(self, count: int, holders: dict[str, int]) -> None:
        """So many roles, and users with the first of them, so many each."""
        name = "'role' || g"
        self.copy("roles", "t.name = 'user'", count, id=sql_id(ROLE), name=name, name_key=name, builtin="false")
        of_user = "t.role_id = (SELECT id FROM roles WHERE name = 'user')"
        self.copy("role_permissions", of_user, count, role_id=sql_id(ROLE))
        for username, held in holders.items():
            mine = f"{of_user} AND t.user_id = (SELECT id FROM users WHERE username = '{username}')"
            self.copy("role_assignments", mine, held - 1, role_id=sql_id(ROLE))
        self.ask("ANALYZE")


def _family(template: Family, stem: str, found: FamilyHash, left: int, secret: bytes, number: int) -> bytes:
    """What writes the family of this number as the server would: its first generation, with its MAC."""
    ids = {
        name: numbered(kind, number) for name, kind in (("id", FAMILY), ("session_id", SESSION), ("user_id", USER))
    }
    family = replace(template, **ids)
    key = stem + family.id.hex
    state = found._replace(generation=1, mac=family.mac(secret, 1)).state()
    return pack_command(("HSET", key, "s", state, "f", family.packed())) + pack_command(("PEXPIRE", key, left))


@contextmanager
def _silent(client: Any) -> Iterator[socket.socket]:
    """A connection to the same Redis and database that answers nothing."""
    where = client.connection_pool.connection_kwargs
    with socket.create_connection((where["host"], where["port"])) as connection:
        connection.sendall(pack_command(("SELECT", where["db"])))
        assert connection.recv(64) == b"+OK\r\n"
        connection.sendall(pack_command(("CLIENT", "REPLY", "OFF")))
        yield connection
