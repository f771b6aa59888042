"""The endpoints: module = key in the metadata (RFC 8414) without "_endpoint", one row each in `ENDPOINTS`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Response

from tokenserver.oauth.endpoints import device_authorization, introspection, jwks, metadata, revocation, token
from tokenserver.oauth.endpoints.request import Server


@dataclass(frozen=True)
class Endpoint:
    """`key`: its name in the metadata; None where the metadata has no place for it."""

    paths: tuple[str, ...]
    methods: tuple[str, ...]
    view: Callable[[Server], Response]
    key: str | None = None


ENDPOINTS: Final = (
    Endpoint(("/oauth/token",), ("POST",), token.view, "token_endpoint"),
    Endpoint(("/oauth/introspect",), ("POST",), introspection.view, "introspection_endpoint"),
    Endpoint(("/oauth/revoke",), ("POST",), revocation.view, "revocation_endpoint"),
    Endpoint(
        ("/oauth/device_authorization",), ("POST",), device_authorization.view, "device_authorization_endpoint"
    ),
    Endpoint(("/.well-known/jwks.json",), ("GET",), jwks.view, "jwks_uri"),
    Endpoint(
        ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"), ("GET",), metadata.view
    ),
)


def blueprint(server: Callable[[Mapping[str, str]], Server]) -> Blueprint:
    """`server`: makes the collaborators, given the metadata's endpoint keys and paths."""
    routes = Blueprint("oauth", __name__)
    rooms = server({endpoint.key: endpoint.paths[0] for endpoint in ENDPOINTS if endpoint.key})
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            name = path.strip("/").replace(".", "_").replace("/", "_")
            view = _bound(endpoint.view, rooms)
            routes.add_url_rule(path, endpoint=name, view_func=view, methods=list(endpoint.methods))
    return routes


def _bound(view: Callable[[Server], Response], rooms: Server) -> Callable[[], Response]:
    return lambda: view(rooms)
