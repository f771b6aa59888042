"""The grants: module = grant_type. Each is one function over plain values and one row in `GRANTS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenserver.clients.metadata import DEVICE_CODE, TOKEN_EXCHANGE
from tokenserver.clients.registry import Client
from tokenserver.oauth.grants import (
    authorization_code,
    client_credentials,
    device_code,
    password,
    refresh_token,
    token_exchange,
)
from tokenserver.oauth.grants.request import Collaborators, TokenRequest


@dataclass(frozen=True)
class Grant:
    """`parameters`: those it understands besides the client's. `confidential`: needs an authenticated client.

    `is_optimistic`: it finds out by itself, in the round trip that it needs anyway, that the feed has moved.
    """

    run: Callable[[TokenRequest, Client, Collaborators], dict[str, Any]]
    parameters: frozenset[str]
    confidential: bool = False
    is_optimistic: bool = False


GRANTS: Final[Mapping[str, Grant]] = {
    "authorization_code": Grant(
        authorization_code.grant, frozenset({"code", "redirect_uri", "code_verifier", "resource"})
    ),
    "client_credentials": Grant(
        client_credentials.grant, frozenset({"scope", "resource"}), confidential=True, is_optimistic=True
    ),
    "password": Grant(password.grant, frozenset({"username", "password", "otp", "scope", "resource"})),
    "refresh_token": Grant(
        refresh_token.grant, frozenset({"refresh_token", "scope", "resource"}), is_optimistic=True
    ),
    DEVICE_CODE: Grant(device_code.grant, frozenset({"device_code", "resource"})),
    TOKEN_EXCHANGE: Grant(
        token_exchange.grant,
        frozenset(
            {
                "subject_token",
                "subject_token_type",
                "actor_token",
                "actor_token_type",
                "requested_token_type",
                "audience",
                "resource",
                "scope",
            }
        ),
        confidential=True,
        is_optimistic=True,
    ),
}
