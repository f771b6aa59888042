"""The `claims` request parameter (OpenID Connect Core section 5.5)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenserver.clients.registry import Client
from tokenserver.identity.claims import SCOPE_OF
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.verify.json_object import json_object

PLACES: Final = ("userinfo", "id_token")


@dataclass(frozen=True, slots=True)
class RequestedClaims:
    """`names`: what may be told, where: {"userinfo": [names], "id_token": [names]}; None: nothing of it.

    `acr_values`: authentication contexts asked for, the best first; `acr_essential`: one of them must be reached,
    or the request fails (section 5.5.1.1). `sub`: the only user that will do.
    """

    names: dict[str, list[str]] | None = None
    acr_values: tuple[str, ...] = ()
    acr_essential: bool = False
    sub: str | None = None


def parse(text: str | None, client: Client) -> RequestedClaims:
    """Without claims that are unknown, or of a scope that the client may not ask for. Raises InvalidRequest."""
    if text is None:
        return RequestedClaims()
    try:
        asked = json_object(text.encode())
    except ValueError:
        raise _malformed() from None
    # Section 5.5: other members may be there, and are ignored.
    places = {place: _members(asked.get(place)) for place in PLACES}
    names = {
        place: [name for name in members if name in SCOPE_OF and _may_ask(client, SCOPE_OF[name])]
        for place, members in places.items()
    }
    acr = places["id_token"].get("acr", {})
    return RequestedClaims(
        names=names if any(names.values()) else None,
        acr_values=tuple(_texts(acr)),
        acr_essential=acr.get("essential", False),
        sub=_sub(places),
    )


def _members(requests: object) -> dict[str, Mapping[str, Any]]:
    """Each claim with its request. Section 5.5.1: null is a request without any wish."""
    if not isinstance(requests, dict | None):
        raise _malformed()
    members = {name: {} if request is None else request for name, request in (requests or {}).items()}
    for request in members.values():
        if (
            not isinstance(request, dict)
            or not isinstance(request.get("essential", False), bool)
            or not isinstance(request.get("values", []), list)
        ):
            raise _malformed()
    return members


def _sub(places: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str | None:
    wanted = {value for members in places.values() for value in _texts(members.get("sub", {}))}
    if len(wanted) > 1:
        raise InvalidRequest("The claims parameter asks for more than one sub.")
    return wanted.pop() if wanted else None


def _texts(request: Mapping[str, Any]) -> Iterator[str]:
    """`value` and `values`, which for what is asked here are strings."""
    for value in (*([request["value"]] if "value" in request else []), *request.get("values", [])):
        if not isinstance(value, str):
            raise _malformed()
        yield value


def _may_ask(client: Client, scope: str) -> bool:
    return client.first_party or scope in client.scope


def _malformed() -> InvalidRequest:
    return InvalidRequest("The parameter claims is malformed.")
