"""The registered clients: found from memory, created, deleted, their secrets rotated."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tokenserver.audit.events import Event
from tokenserver.audit.record import record
from tokenserver.clients import client_secret
from tokenserver.clients.models import ClientRow
from tokenserver.errors import Conflict, FieldError, Invalid, NotFound
from tokenserver.storage.cache import Cache
from tokenserver.storage.feed import Change, Entry, Feed, Kind
from tokenserver.storage.sql import Transaction, utc_now

CACHED_CLIENTS: Final = 10_000
# Behind /auth/login and /auth/refresh, and in every deployment.
FIRST_PARTY: Final = "first-party"
CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")
# RFC 7519 section 4.1.3: a StringOrURI. The list is kept with its members joined by spaces.
AUDIENCE: Final = re.compile(r"[\x21-\x7E]{1,255}")
GRANT_TYPES: Final = frozenset({"client_credentials", "password", "refresh_token"})
AUTH_METHODS: Final = frozenset({"client_secret_basic", "client_secret_post", "none"})


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client, as of the last `Feed.sync`. `scope`: the most it may ask for."""

    client_id: str
    client_name: str
    client_secret_digest: bytes | None
    grant_types: frozenset[str]
    scope: frozenset[str]
    token_endpoint_auth_method: str
    audience: tuple[str, ...]
    first_party: bool

    @property
    def is_confidential(self) -> bool:
        return self.token_endpoint_auth_method != "none"

    def allows(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


class Clients:
    def __init__(self, feed: Feed, known_scopes: frozenset[str]) -> None:
        self._feed = feed
        self._known_scopes = known_scopes
        self._clients: Cache[str, Client] = Cache(CACHED_CLIENTS)
        feed.subscribe(self._apply, lambda _entries: self._clients.clear())

    def _apply(self, entry: Entry) -> None:
        if entry.kind is Kind.CLIENT_CHANGED:
            self._clients.drop(entry.subject)

    def find(self, client_id: str) -> Client | None:
        client = self._clients.get(client_id)
        # What can't be an id is not asked of the database, which may refuse its characters.
        if client is None and CLIENT_ID.fullmatch(client_id):
            ticket = self._clients.ticket()
            row = self._feed.database.read(lambda tx: tx.get(ClientRow, client_id))
            if row is not None:
                client = _client(row)
                self._clients.put(client_id, client, ticket)
        return client

    def list(self) -> Sequence[ClientRow]:
        query = select(ClientRow).order_by(ClientRow.created_at, ClientRow.client_id)
        return self._feed.database.read(lambda tx: tx.scalars(query).all())

    def get(self, client_id: str) -> ClientRow:
        row = self._feed.database.read(lambda tx: tx.get(ClientRow, client_id))
        if row is None:
            raise NotFound("There is no such client.", code="client_not_found")
        return row

    def create(
        self,
        *,
        client_name: str,
        grant_types: Sequence[str],
        client_id: str | None = None,
        scope: Sequence[str] = (),
        token_endpoint_auth_method: str = "client_secret_basic",
        audience: Sequence[str] = (),
    ) -> tuple[ClientRow, str | None]:
        """The client and, for a confidential one, its secret: the only time it is seen."""
        errors = _faults(client_id, grant_types, scope, token_endpoint_auth_method, self._known_scopes)
        if not all(AUDIENCE.fullmatch(each) for each in audience):
            errors.append(FieldError("audience", "Identifiers of resources, without spaces."))
        if errors:
            raise Invalid(errors)
        secret = client_secret.generate() if token_endpoint_auth_method != "none" else None
        now = utc_now()
        row = ClientRow(
            client_id=client_id or secrets.token_hex(12),
            client_secret_digest=client_secret.digest(secret) if secret else None,
            client_name=client_name,
            redirect_uris=[],
            grant_types=sorted(set(grant_types)),
            response_types=[],
            scope=" ".join(sorted(set(scope))),
            token_endpoint_auth_method=token_endpoint_auth_method,
            audience=list(audience),
            first_party=False,
            created_at=now,
            updated_at=now,
        )

        def create(tx: Transaction, change: Change) -> None:
            if tx.get(ClientRow, row.client_id) is not None:
                raise Conflict("There is a client with this id.", code="client_exists")
            tx.add(row)
            try:
                tx.flush()
            except IntegrityError:
                # Somebody else took the id between the look and the write.
                raise Conflict("There is a client with this id.", code="client_exists") from None
            record(tx, Event.CLIENT_CREATED, target=row.client_id, grant_types=row.grant_types, scope=row.scope)
            change.note(Kind.CLIENT_CHANGED, row.client_id)

        self._feed.change(create)
        return row, secret

    def rotate_secret(self, client_id: str) -> str:
        """A new secret; the old one fails from the next request on."""
        secret = client_secret.generate()

        def rotate(tx: Transaction, change: Change) -> None:
            row = tx.get(ClientRow, client_id)
            if row is None:
                raise NotFound("There is no such client.", code="client_not_found")
            if row.token_endpoint_auth_method == "none":
                raise Conflict("A public client has no secret.", code="public_client")
            row.client_secret_digest = client_secret.digest(secret)
            row.updated_at = utc_now()
            record(tx, Event.CLIENT_SECRET_ROTATED, target=client_id)
            change.note(Kind.CLIENT_CHANGED, client_id)

        self._feed.change(rotate)
        return secret

    def delete(self, tx: Transaction, change: Change, client_id: str) -> None:
        """The caller ends the client's sessions in the same transaction."""
        row = tx.get(ClientRow, client_id)
        if row is None:
            raise NotFound("There is no such client.", code="client_not_found")
        if client_id == FIRST_PARTY:
            raise Conflict("The built-in client can't be deleted.", code="builtin_client")
        tx.delete(row)
        record(tx, Event.CLIENT_DELETED, target=client_id)
        change.note(Kind.CLIENT, client_id)
        change.note(Kind.CLIENT_CHANGED, client_id)


def create_first_party(tx: Transaction) -> bool:
    """The built-in public client; True when it was missing."""
    if tx.get(ClientRow, FIRST_PARTY) is not None:
        return False
    now = utc_now()
    tx.add(
        ClientRow(
            client_id=FIRST_PARTY,
            client_name="This server's own sign-in",
            redirect_uris=[],
            grant_types=["password", "refresh_token"],
            response_types=[],
            scope="",
            token_endpoint_auth_method="none",
            audience=[],
            first_party=True,
            created_at=now,
            updated_at=now,
        )
    )
    return True


def _faults(
    client_id: str | None,
    grant_types: Sequence[str],
    scope: Sequence[str],
    auth_method: str,
    known_scopes: frozenset[str],
) -> list[FieldError]:
    errors = []
    if client_id is not None and (not CLIENT_ID.fullmatch(client_id) or _is_uuid(client_id)):
        # A token's `sub` is a user's id or a client's; the two must never be taken for each other.
        errors.append(FieldError("client_id", "Letters, digits, . _ ~ -; at most 128; not a UUID."))
    if not grant_types or not set(grant_types) <= GRANT_TYPES:
        errors.append(FieldError("grant_types", "One or more of " + ", ".join(sorted(GRANT_TYPES)) + "."))
    if set(grant_types) == {"refresh_token"}:
        errors.append(FieldError("grant_types", "refresh_token needs another grant that issues the first one."))
    if not set(scope) <= known_scopes:
        errors.append(FieldError("scope", "Holds a scope that this server doesn't know."))
    if auth_method not in AUTH_METHODS:
        errors.append(FieldError("token_endpoint_auth_method", "One of " + ", ".join(sorted(AUTH_METHODS)) + "."))
    if auth_method == "none" and "client_credentials" in grant_types:
        # RFC 6749 section 4.4: confidential clients only
        errors.append(FieldError("grant_types", "client_credentials needs a confidential client."))
    return errors


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _client(row: ClientRow) -> Client:
    return Client(
        client_id=row.client_id,
        client_name=row.client_name,
        client_secret_digest=row.client_secret_digest,
        grant_types=frozenset(row.grant_types),
        scope=frozenset(row.scope.split()),
        token_endpoint_auth_method=row.token_endpoint_auth_method,
        audience=tuple(row.audience),
        first_party=row.first_party,
    )
