"""Subject identifiers (OpenID Connect Core section 8): one user, by a name of their own in each sector."""

from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tokenserver.clients.registry import Client
from tokenserver.errors import StoreUnavailable
from tokenserver.storage.feed import ServerState
from tokenserver.storage.sql import Database

SUBJECT_TYPES: Final = ("public", "pairwise")


class Subjects:
    """A pairwise subject is the user's id, one block long, encrypted by AES-256 under a key of the sector: nobody
    else can tell which user it is, or that two of them are one user, and no table is needed to turn it back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key: bytes | None = None

    def of(self, client: Client, user_id: UUID) -> str:
        """What this client knows the user by."""
        if client.metadata.subject_type != "pairwise":
            return str(user_id)
        encryptor = self._cipher(client).encryptor()
        return str(UUID(bytes=encryptor.update(user_id.bytes) + encryptor.finalize()))

    def user_id(self, client: Client, sub: str) -> UUID:
        """The user whom this client knows by `sub`; for a `sub` that was never issued, the id of nobody.

        Raises ValueError for what is no subject at all.
        """
        known_by = UUID(sub)
        if str(known_by) != sub:
            raise ValueError("sub is not in the spelling that was issued")
        if client.metadata.subject_type != "pairwise":
            return known_by
        decryptor = self._cipher(client).decryptor()
        return UUID(bytes=decryptor.update(known_by.bytes) + decryptor.finalize())

    def _cipher(self, client: Client) -> Cipher[ECB]:
        info = b"pairwise subject\0" + sector_of(client).encode()
        # One block under a key that encrypts nothing else: ECB is the bare permutation.
        return Cipher(AES(HKDF(SHA256(), 32, salt=None, info=info).derive(self._secret())), ECB())  # noqa: S305

    def _secret(self) -> bytes:
        if self._key is None:
            state = self._database.read(lambda tx: tx.get(ServerState, 1))
            if state is None or state.pairwise_key is None:
                raise StoreUnavailable("sql", "server_state has no pairwise_key: run `tokenserver init`")
            self._key = state.pairwise_key
        return self._key


def sector_of(client: Client) -> str:
    """Section 8.1: the host of the sector_identifier_uri, or of the redirect URIs where they have one in common.

    A client with neither, such as one of devices alone, is a sector of its own.
    """
    uri = client.metadata.sector_identifier_uri
    uris = client.metadata.redirect_uris if uri is None else (uri,)
    hosts = {urlsplit(each).hostname for each in uris}
    host = hosts.pop() if len(hosts) == 1 else None
    # A host has no space in it, so no client can name itself into somebody else's sector.
    return host or f"client {client.client_id}"
