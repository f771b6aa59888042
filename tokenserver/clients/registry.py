"""The registered clients: found from memory, created, updated, deleted, their secrets rotated."""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Row, bindparam, select
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients import client_secret, jwks
from tokenserver.clients.metadata import (
    CLIENT_ID,
    OPTIONAL,
    SECRET_METHODS,
    STANDARD_SCOPES,
    Metadata,
    completed,
    faults,
    id_faults,
    token_algs,
)
from tokenserver.clients.models import ClientRow
from tokenserver.errors import Conflict, Invalid, NotFound
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Change, Entry, Feed, Kind
from tokenserver.storage.sql import Base, Transaction, utc_now

__all__ = ["ADMIN_CONSOLE", "FIRST_PARTY", "Client", "Clients", "create_builtin", "described"]

CACHED_CLIENTS: Final = 10_000
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# In every deployment: behind /auth/login and /auth/refresh; behind /admin.
FIRST_PARTY: Final = "first-party"
ADMIN_CONSOLE: Final = "admin-console"
# What signing in to this server, and to its console, depends on.
_KEPT_AS_IT_IS: Final = ("grant_types", "token_endpoint_auth_method", "audience", "first_party")
BUILTIN: Final[Mapping[str, tuple[str, ...]]] = {
    FIRST_PARTY: _KEPT_AS_IT_IS,
    ADMIN_CONSOLE: (*_KEPT_AS_IT_IS, "redirect_uris", "response_types"),
}
EDITABLE: Final = tuple(field.name for field in fields(Metadata))
CLIENTS: Final = Base.metadata.tables[ClientRow.__tablename__]
# As `ClientRow` names them. By the ORM, and composed anew each time, it would take three times as long.
_COLUMNS: Final = [each.label("optional") if each.name == "metadata" else each for each in CLIENTS.c]
BY_ID: Final = select(*_COLUMNS).where(CLIENTS.c.client_id == bindparam("client_id"))


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client, as of the last `Feed.sync`. `scope`: the most it may ask for. `metadata`: all of it, for
    what the fields here don't hold."""

    client_id: str
    client_name: str
    client_secret_digest: bytes | None
    client_secret_sealed: bytes | None
    registration_access_token_digest: bytes | None
    grant_types: frozenset[str]
    response_types: frozenset[str]
    scope: frozenset[str]
    token_endpoint_auth_method: str
    audience: tuple[str, ...]
    first_party: bool
    metadata: Metadata

    @property
    def is_confidential(self) -> bool:
        return self.token_endpoint_auth_method != "none"

    def allows(self, grant_type: str) -> bool:
        return grant_type in self.grant_types

    @property
    def origins(self) -> frozenset[str]:
        """Of its pages: those of its redirect URIs."""
        return _origins(self.metadata.redirect_uris)


class Clients:
    """`sealing_keys`: under the first of which secrets are sealed that must be known again, newest first.
    `ensure_key`: sees to it that tokens can be signed by an algorithm."""

    def __init__(
        self,
        feed: Feed,
        known_scopes: frozenset[str],
        sealing_keys: Callable[[], Sequence[bytes]],
        ensure_key: Callable[[str], None],
    ) -> None:
        self._sealing_keys = sealing_keys
        self._ensure_key = ensure_key
        self.permissions = known_scopes - STANDARD_SCOPES
        self._feed = feed
        self._known_scopes = known_scopes
        self._clients: Cache[str, Client] = Cache(CACHED_CLIENTS)
        self._origins: Cache[None, frozenset[str]] = Cache(1)
        feed.subscribe(self._apply, self._forget)

    def _apply(self, entry: Entry) -> None:
        if entry.kind is Kind.CLIENT_CHANGED:
            self._clients.drop(entry.subject)
            self._origins.clear()

    def _forget(self, _entries: object) -> None:
        self._clients.clear()
        self._origins.clear()

    # Reading

    def find(self, client_id: str) -> Client | None:
        client = self._clients.get(client_id)
        # What can't be an id is not asked of the database, which may refuse its characters.
        if client is None and CLIENT_ID.fullmatch(client_id):
            ticket = self._clients.ticket()
            wanted = {"client_id": client_id}
            row = self._feed.database.read(lambda tx: tx.connection().execute(BY_ID, wanted).one_or_none())
            if row is not None:
                client = _client(row)
                self._clients.put(client_id, client, ticket)
        return client

    def origins(self) -> frozenset[str]:
        """Those of all clients, as of the last `Feed.sync`."""
        origins = self._origins.get(None)
        if origins is None:
            ticket = self._origins.ticket()
            kept = self._feed.database.read(lambda tx: tx.scalars(select(ClientRow.redirect_uris)).all())
            origins = _origins(uri for uris in kept for uri in uris)
            self._origins.put(None, origins, ticket)
        return origins

    def list(self) -> Sequence[ClientRow]:
        query = select(ClientRow).order_by(ClientRow.created_at, ClientRow.client_id)
        return self._feed.database.read(lambda tx: tx.scalars(query).all())

    def search(self, words: str, *, limit: int, after: str | None) -> Sequence[ClientRow]:
        """By id, from the one behind `after`; those whose id or name holds `words`, whatever its case."""
        query = select(ClientRow).order_by(ClientRow.client_id).limit(limit)
        if words:
            in_id = ClientRow.client_id.icontains(words, autoescape=True)
            query = query.where(in_id | ClientRow.client_name.icontains(words, autoescape=True))
        if after is not None:
            query = query.where(ClientRow.client_id > after)
        return self._feed.database.read(lambda tx: tx.scalars(query).all())

    def get(self, client_id: str) -> ClientRow:
        return self._feed.database.read(lambda tx: self._get(tx, client_id))

    def lock(self, tx: Transaction, client_id: str) -> ClientRow:
        """The client, as nobody else can change it until the transaction ends."""
        return self._get(tx, client_id, lock=True)

    @staticmethod
    def _get(tx: Transaction, client_id: str, *, lock: bool = False) -> ClientRow:
        row = tx.get(ClientRow, client_id, with_for_update=lock or None) if CLIENT_ID.fullmatch(client_id) else None
        if row is None:
            raise NotFound("There is no such client.", code="client_not_found")
        return row

    # Changing

    def check(self, metadata: Metadata) -> None:
        """What `add` and `update` would raise of it. Raises Invalid."""
        self._values(metadata)

    def ensure_keys(self, metadata: Metadata) -> None:
        """Of the algorithms that this server signs by for the client. It takes a while, so outside of any
        transaction, and before the client is there."""
        for alg in token_algs(metadata):
            self._ensure_key(alg)

    def create(self, *, client_id: str | None = None, **metadata: Any) -> tuple[ClientRow, str | None]:
        """`add` in a transaction of its own. `metadata`: fields of `Metadata`."""
        return self.register(Metadata(**metadata), client_id)

    def register(self, metadata: Metadata, client_id: str | None = None) -> tuple[ClientRow, str | None]:
        """Like `create`."""
        self.check(metadata)
        self.ensure_keys(metadata)
        return self._feed.change(lambda tx, change: self.add(tx, change, metadata, client_id))

    def add(
        self, tx: Transaction, change: Change, metadata: Metadata, client_id: str | None = None
    ) -> tuple[ClientRow, str | None]:
        """The client and, for a confidential one, its secret: the only time it is seen. `client_id`: a random one
        when not given. Raises Invalid, Conflict `client_exists`."""
        values = self._values(metadata, client_id)
        now = utc_now()
        client_id = client_id or secrets.token_hex(12)
        row = ClientRow(client_id=client_id, created_at=now, updated_at=now)
        _keep(row, values)
        secret = self._new_secret(row) if row.token_endpoint_auth_method in SECRET_METHODS else None
        if tx.get(ClientRow, client_id) is not None:
            raise Conflict("There is a client with this id.", code="client_exists")
        tx.add(row)
        try:
            tx.flush()
        except IntegrityError:
            # Somebody else took the id between the look and the write.
            raise Conflict("There is a client with this id.", code="client_exists") from None
        record(tx, Event.CLIENT_CREATED, target=client_id, after=_recorded(row, EDITABLE))
        change.note(Kind.CLIENT_CHANGED, client_id)
        return row, secret

    def update(
        self, tx: Transaction, change: Change, client_id: str, metadata: Metadata
    ) -> tuple[ClientRow, str | None]:
        """Replace all of the metadata. The secret: a new one, if the client had none that now serves.

        Raises Invalid, NotFound, Conflict `builtin_client`.
        """
        row = self.lock(tx, client_id)
        values, old = self._values(metadata), _kept(row)
        changed = [name for name in EDITABLE if old[name] != values[name]]
        if not set(BUILTIN.get(client_id, ())).isdisjoint(changed):
            raise Conflict("Signing in depends on this of the built-in client.", code="builtin_client")
        if not changed:
            return row, None
        before = _recorded(row, changed)
        _keep(row, values)
        secret = None
        if row.token_endpoint_auth_method not in SECRET_METHODS:
            row.client_secret_digest = row.client_secret_sealed = None
        elif row.token_endpoint_auth_method != "client_secret_jwt":
            row.client_secret_sealed = None
            secret = self._new_secret(row) if row.client_secret_digest is None else None
        elif row.client_secret_sealed is None:
            # Of a secret that served otherwise so far there is only a digest.
            secret = self._new_secret(row)
        row.updated_at = utc_now()
        record(tx, Event.CLIENT_UPDATED, target=client_id, before=before, after=_recorded(row, changed))
        change.note(Kind.CLIENT_CHANGED, client_id)
        return row, secret

    def rotate_secret(self, tx: Transaction, change: Change, client_id: str) -> str:
        """A new secret; the old one fails from the next request on. Raises NotFound, Conflict `public_client`."""
        row = self.lock(tx, client_id)
        if row.token_endpoint_auth_method not in SECRET_METHODS:
            raise Conflict("A public client has no secret.", code="public_client")
        secret = self._new_secret(row)
        row.updated_at = utc_now()
        record(tx, Event.CLIENT_SECRET_ROTATED, target=client_id)
        change.note(Kind.CLIENT_CHANGED, client_id)
        return secret

    def _new_secret(self, row: ClientRow) -> str:
        secret = client_secret.generate()
        row.client_secret_digest = client_secret.digest(secret)
        is_shared = row.token_endpoint_auth_method == "client_secret_jwt"
        row.client_secret_sealed = (
            client_secret.seal(secret, self._sealing_keys(), row.client_id) if is_shared else None
        )
        return secret

    @staticmethod
    def is_secret_of(client: Client, secret: object) -> bool:
        return isinstance(secret, str) and client_secret.matches(secret, client.client_secret_digest)

    def shared_secret(self, client: Client) -> str | None:
        """Of a client that makes MACs with it; None when there is none, or none that can be opened any more."""
        sealed = client.client_secret_sealed
        return None if sealed is None else client_secret.unseal(sealed, self._sealing_keys(), client.client_id)

    def reseal(self) -> int:
        """Secrets that were sealed under an older key are under the newest from now on; how many.

        To be called before an older key is thrown away.
        """
        query = select(ClientRow.client_id, ClientRow.client_secret_sealed)
        query = query.where(ClientRow.client_secret_sealed.is_not(None))
        newest, *older = self._sealing_keys()
        old = [
            client_id
            for client_id, sealed in self._feed.database.read(lambda tx: tx.execute(query).all())
            if client_secret.unseal(sealed, [newest], client_id) is None
            and client_secret.unseal(sealed, older, client_id) is not None
        ]

        def again(client_id: str, tx: Transaction, change: Change) -> None:
            row = tx.get(ClientRow, client_id, with_for_update=True)
            sealed = row and row.client_secret_sealed
            secret = sealed and client_secret.unseal(sealed, older, client_id)
            if row and secret:  # else it was changed or deleted meanwhile
                row.client_secret_sealed = client_secret.seal(secret, [newest], client_id)
                change.note(Kind.CLIENT_CHANGED, client_id)

        for client_id in old:
            self._feed.change(partial(again, client_id))
        return len(old)

    def delete(self, tx: Transaction, change: Change, client_id: str) -> None:
        """The caller ends the client's sessions in the same transaction."""
        row = self.lock(tx, client_id)
        if client_id in BUILTIN:
            raise Conflict("The built-in client can't be deleted.", code="builtin_client")
        tx.delete(row)
        record(tx, Event.CLIENT_DELETED, target=client_id, before=_recorded(row, EDITABLE))
        change.note(Kind.CLIENT, client_id)
        change.note(Kind.CLIENT_CHANGED, client_id)

    def _values(self, metadata: Metadata, client_id: str | None = None) -> dict[str, Any]:
        """The columns, as they are kept. Raises Invalid."""
        metadata = completed(metadata)
        errors = [*faults(metadata, self._known_scopes)]
        if client_id is not None:
            errors += id_faults(client_id)
        if metadata.jwks is not None:
            errors += jwks.faults(metadata.jwks)
        if errors:
            raise Invalid(errors)
        return {
            "client_name": metadata.client_name,
            "redirect_uris": [*metadata.redirect_uris],
            "grant_types": [*metadata.grant_types],
            "response_types": [*metadata.response_types],
            "scope": " ".join(metadata.scope),
            "token_endpoint_auth_method": metadata.token_endpoint_auth_method,
            "jwks": None if metadata.jwks is None else jwks.understood(metadata.jwks),
            "audience": [*metadata.audience],
            "first_party": metadata.first_party,
            **{name: _plain(getattr(metadata, name)) for name in OPTIONAL},
        }


def create_builtin(tx: Transaction, console_uri: str) -> bool:
    """The built-in public clients; True when one was missing. `console_uri`: where the console's users come back
    to, which follows the issuer."""
    known = _add_builtin(tx, FIRST_PARTY, "This server's own sign-in", ["password", "refresh_token"])
    console = _add_builtin(tx, ADMIN_CONSOLE, "Admin console", ["authorization_code", "refresh_token"])
    if console.redirect_uris != [console_uri]:
        console.redirect_uris = [console_uri]
    return any(row in tx.new for row in (known, console))


def _add_builtin(tx: Transaction, client_id: str, name: str, grant_types: list[str]) -> ClientRow:
    row = tx.get(ClientRow, client_id)
    if row is None:
        now = utc_now()
        row = ClientRow(
            client_id=client_id,
            client_name=name,
            redirect_uris=[],
            grant_types=grant_types,
            response_types=["code"] if "authorization_code" in grant_types else [],
            scope="",
            token_endpoint_auth_method="none",
            audience=[],
            first_party=True,
            created_at=now,
            updated_at=now,
        )
        tx.add(row)
    return row


def described(row: ClientRow) -> dict[str, Any]:
    """All that may be shown of a client (RFC 7591 section 3.2.1)."""
    return {
        "client_id": row.client_id,
        "client_id_issued_at": int(row.created_at.timestamp()),
        **_kept(row),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _recorded(row: ClientRow, names: Iterable[str]) -> dict[str, Any]:
    """For the audit log, where keys are known by their thumbprints."""
    kept = _kept(row)
    values = {name: kept[name] for name in names}
    if values.get("jwks") is not None:
        values["jwks"] = jwks.thumbprints(values["jwks"])
    return values


def _origins(uris: Iterable[str]) -> frozenset[str]:
    """As browsers write them in the Origin header; an app's own scheme has none."""
    found = set()
    for uri in uris:
        parts = urlsplit(uri)
        if parts.scheme in DEFAULT_PORTS and parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            port = "" if parts.port in {None, DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
            found.add(f"{parts.scheme}://{host}{port}")
    return frozenset(found)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _keep(row: ClientRow, values: Mapping[str, Any]) -> None:
    """`values`: of all of `EDITABLE`."""
    for name in EDITABLE:
        if name not in OPTIONAL:
            setattr(row, name, values[name])
    row.optional = {name: values[name] for name in OPTIONAL if values[name] != _plain(OPTIONAL[name])} or None


def _kept(row: ClientRow | Row[Any]) -> dict[str, Any]:
    """All of `EDITABLE`."""
    given = row.optional or {}
    return {
        name: given.get(name, _plain(OPTIONAL[name])) if name in OPTIONAL else getattr(row, name)
        for name in EDITABLE
    }


def _client(row: ClientRow | Row[Any]) -> Client:
    return Client(
        client_id=row.client_id,
        client_name=row.client_name,
        client_secret_digest=row.client_secret_digest,
        client_secret_sealed=row.client_secret_sealed,
        registration_access_token_digest=row.registration_access_token_digest,
        grant_types=frozenset(row.grant_types),
        response_types=frozenset(row.response_types),
        scope=frozenset(row.scope.split()),
        token_endpoint_auth_method=row.token_endpoint_auth_method,
        audience=tuple(row.audience),
        first_party=row.first_party,
        metadata=Metadata(**_kept(row) | {"scope": row.scope.split()}),
    )
