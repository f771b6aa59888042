"""What a client that registers itself may be (RFC 7591 section 2), and the token that it manages itself by
(RFC 7592).
"""

import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from marshmallow import EXCLUDE, ValidationError

from tokenserver.clients.client_secret import digest
from tokenserver.clients.metadata import STANDARD_SCOPES, TOKEN_EXCHANGE, Metadata
from tokenserver.clients.models import ClientRow
from tokenserver.clients.schemas import ClientMetadataSchema
from tokenserver.errors import FieldError, Invalid

PREFIX: Final = "rat_"
# An admin decides about these: whose consent isn't asked, what its tokens are for, whose tokens it may exchange.
NOT_ITS_OWN: Final = ("first_party", "audience", "token_exchange")
# It would take people's passwords, or other clients' tokens.
NEVER: Final = frozenset({"password", TOKEN_EXCHANGE})
INVITED: Final = frozenset({"client_credentials"})
# What would let it look into other clients' tokens.
NEVER_SCOPES: Final = frozenset({"tokens:introspect"})


def read(
    body: Mapping[str, Any], *, scopes: Collection[str], grants: Collection[str], own: Collection[str]
) -> Metadata:
    """`scopes`, `grants`: those that this client may have beside what everybody may. `own`: permissions that it may
    have without any user. Raises Invalid.

    RFC 7591 section 2: metadata that isn't understood is ignored; null stands for a member that is left out.
    """
    if "software_statement" in body:
        raise Invalid([FieldError("software_statement", "No publisher of software statements is trusted.")])
    given = {name: value for name, value in body.items() if value is not None and name not in NOT_ITS_OWN}
    try:
        loaded = dict(ClientMetadataSchema().load(given, unknown=EXCLUDE))
    except ValidationError as error:
        raise Invalid([FieldError(str(name), "Wrong type.") for name in error.messages_dict]) from None
    if "scope" not in given:
        loaded["scope"] = sorted(STANDARD_SCOPES)
    metadata = Metadata(**loaded)
    allowed = (STANDARD_SCOPES | frozenset(scopes)) - NEVER_SCOPES
    errors = []
    if not allowed.issuperset(metadata.scope):
        errors.append(FieldError("scope", "Holds more than this registration allows."))
    refused = (NEVER | INVITED) - frozenset(grants)
    if not refused.isdisjoint(metadata.grant_types):
        errors.append(FieldError("grant_types", "Holds more than this registration allows."))
    # A user bounds what a user's token covers. Nobody bounds this, so an admin gives it (`clients.reach`).
    if "client_credentials" in metadata.grant_types and not (STANDARD_SCOPES | set(own)).issuperset(metadata.scope):
        errors.append(FieldError("scope", "With client_credentials, permissions are an admin's to give."))
    if errors:
        raise Invalid(errors)
    return metadata


def kept(wanted: Metadata, has: Metadata) -> Metadata:
    """What a client wants to be from now on, with what an admin decided about it."""
    decided = {name: getattr(has, name) for name in NOT_ITS_OWN}
    if TOKEN_EXCHANGE not in wanted.grant_types:
        decided["token_exchange"] = None
    return replace(wanted, **decided)


def give_token(row: ClientRow) -> str:
    """256 bits; kept as a digest."""
    token = PREFIX + secrets.token_urlsafe(32)
    row.registration_access_token_digest = digest(token)
    return token


def is_token_of(token: str, stored: bytes | None) -> bool:
    """In constant time, also where there is none."""
    return hmac.compare_digest(digest(token), stored or bytes(32)) and stored is not None
