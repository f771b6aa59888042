"""Client authentication (RFC 6749 section 2.3): exactly one method, the one that the client registered."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from tokenserver.clients import client_secret
from tokenserver.clients.registry import Client, Clients
from tokenserver.oauth.errors import InvalidClient, InvalidRequest


def authenticate(clients: Clients, authorization: str | None, parameters: Mapping[str, str]) -> Client:
    """Raises InvalidClient, with one and the same message for an unknown client, a wrong secret, a wrong method."""
    client_id, secret, method = _presented(authorization, parameters)
    client = clients.find(client_id)
    if client is None:
        client_secret.matches(secret or "", None)  # the same work as for a known one
        raise InvalidClient(reason="unknown_client")
    if client.token_endpoint_auth_method != method:
        raise InvalidClient(reason="wrong_authentication_method")
    if method != "none" and not client_secret.matches(secret or "", client.client_secret_digest):
        raise InvalidClient(reason="wrong_secret")
    return client


def _presented(authorization: str | None, parameters: Mapping[str, str]) -> tuple[str, str | None, str]:
    """client_id, secret, method."""
    in_body = parameters.get("client_id"), parameters.get("client_secret")
    if authorization is not None:
        client_id, secret = _basic(authorization)
        # RFC 6749 section 2.3: not more than one method in a request. The id alone is no method.
        if in_body[1] is not None:
            raise InvalidRequest("Use one way of client authentication.")
        if in_body[0] not in {None, client_id}:
            raise InvalidRequest("The client_id differs from the authenticated client.")
        return client_id, secret, "client_secret_basic"
    if in_body[0] is None:
        raise InvalidClient(reason="no_credentials")
    return in_body[0], in_body[1], "client_secret_post" if in_body[1] is not None else "none"


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient(reason="wrong_scheme")
    try:
        # RFC 6749 section 2.3.1: both halves are form-encoded before RFC 7617 joins and encodes them.
        client_id, separator, secret = b64decode(encoded.strip(), validate=True).partition(b":")
        if not separator:
            raise InvalidClient(reason="malformed_basic")
        return _form_decoded(client_id), _form_decoded(secret)
    except (binascii.Error, ValueError):
        raise InvalidClient(reason="malformed_basic") from None


def _form_decoded(value: bytes) -> str:
    return unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8")
