"""The endpoints: module = key in the metadata (RFC 8414) without "_endpoint", one row each in `ENDPOINTS`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import flask
from flask import Blueprint, Response

from tokenserver.oauth.endpoints import (
    authorization,
    check_session_iframe,
    cors,
    device_authorization,
    end_session,
    introspection,
    jwks,
    metadata,
    registration,
    revocation,
    revocation_list,
    token,
    userinfo,
)
from tokenserver.oauth.endpoints.request import Server


@dataclass(frozen=True)
class Endpoint:
    """`key`: its name in the metadata; None where the metadata has no place for it. `cors`: pages of its clients
    may call it by script and read the answer. `page`: people open it in a browser, so it is no part of the API
    description."""

    paths: tuple[str, ...]
    methods: tuple[str, ...]
    view: Callable[[Server], Response]
    key: str | None = None
    cors: bool = False
    page: bool = False


ENDPOINTS: Final = (
    Endpoint(("/oauth/authorize",), ("GET", "POST"), authorization.view, "authorization_endpoint", page=True),
    Endpoint((authorization.RESUME.format(id="<interaction_id>"),), ("GET",), authorization.resume, page=True),
    Endpoint(("/oauth/token",), ("POST",), token.view, "token_endpoint", cors=True),
    Endpoint(("/oauth/introspect",), ("POST",), introspection.view, "introspection_endpoint"),
    Endpoint(("/oauth/revoke",), ("POST",), revocation.view, "revocation_endpoint", cors=True),
    Endpoint(
        ("/oauth/device_authorization",), ("POST",), device_authorization.view, "device_authorization_endpoint"
    ),
    Endpoint(("/oauth/userinfo",), ("GET", "POST"), userinfo.view, "userinfo_endpoint", cors=True),
    Endpoint((end_session.PATH,), ("GET", "POST"), end_session.view, "end_session_endpoint", page=True),
    Endpoint(("/oauth/check_session",), ("GET",), check_session_iframe.view, "check_session_iframe", page=True),
    Endpoint((registration.PATH,), ("POST",), registration.view, "registration_endpoint"),
    Endpoint((f"{registration.PATH}/<client_id>",), ("GET", "PUT", "DELETE"), registration.manage),
    Endpoint(("/.well-known/jwks.json",), ("GET",), jwks.view, "jwks_uri"),
    Endpoint(("/oauth/revocation_list",), ("GET",), revocation_list.view, "revocation_list_uri"),
    Endpoint(
        ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"), ("GET",), metadata.view
    ),
)


def path_of(key: str) -> str:
    """Of the endpoint with this key in the metadata."""
    return next(endpoint.paths[0] for endpoint in ENDPOINTS if endpoint.key == key)


PATHS: Final[Mapping[str, str]] = {endpoint.key: endpoint.paths[0] for endpoint in ENDPOINTS if endpoint.key}


def blueprint(rooms: Server) -> Blueprint:
    routes = Blueprint("oauth", __name__)
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            name = re.sub(r"\W+", "_", path.strip("/"))
            routes.add_url_rule(path, name, _bound(endpoint, rooms), methods=_methods(endpoint))
    shared = {path for endpoint in ENDPOINTS if endpoint.cors for path in endpoint.paths}

    @routes.after_request
    def let_read(response: Response) -> Response:
        if flask.request.path in shared and flask.request.method != "OPTIONS":
            cors.let_read(rooms, response)
        return response

    return routes


def _methods(endpoint: Endpoint) -> list[str]:
    return [*endpoint.methods, *(["OPTIONS"] if endpoint.cors else [])]


def _bound(endpoint: Endpoint, rooms: Server) -> Callable[..., Response]:
    def view(**_: str) -> Response:  # parts of the path: `request.view_args` has them
        if endpoint.cors and flask.request.method == "OPTIONS":
            return cors.preflight(rooms, endpoint.methods)
        return endpoint.view(rooms)

    return view
