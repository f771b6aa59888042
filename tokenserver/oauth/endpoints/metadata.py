"""RFC 8414 and OpenID Connect Discovery, computed from what is there, so that it can't drift from behaviour."""

import hashlib
from typing import Any

from flask import Response, json

from tokenserver.clients.metadata import AUTH_METHODS
from tokenserver.oauth.endpoints.jwks import cached
from tokenserver.oauth.endpoints.request import Server
from tokenserver.oauth.grants import GRANTS
from tokenserver.oauth.scope import KNOWN, to_text


def view(server: Server) -> Response:
    body = json.dumps(document(server)).encode()
    return cached(Response(body, mimetype="application/json"), hashlib.sha256(body).hexdigest()[:32], 300)


def document(server: Server) -> dict[str, Any]:
    issuer = server.settings.issuer
    alg = server.settings.signing_alg
    confidential = sorted(AUTH_METHODS - {"none"})
    return {
        "issuer": issuer,
        **{key: issuer + path for key, path in server.endpoint_paths.items()},
        "grant_types_supported": sorted(GRANTS),
        # Required by RFC 8414 section 2; empty while there is no authorization endpoint.
        "response_types_supported": [],
        "scopes_supported": to_text(KNOWN).split(),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [alg],
        "token_endpoint_auth_methods_supported": sorted(AUTH_METHODS),
        "introspection_endpoint_auth_methods_supported": confidential,
        "revocation_endpoint_auth_methods_supported": sorted(AUTH_METHODS),
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid", "at_hash"],
        "claim_types_supported": ["normal"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
    }
