"""RFC 8414 and OpenID Connect Discovery, computed from what is there, so that it can't drift from behaviour."""

import hashlib
from typing import Any

from flask import Response, json

from tokenserver.clients.metadata import (
    AUTH_METHODS,
    CONTENT_ENCRYPTION_ALGS,
    KEY_MANAGEMENT_ALGS,
    RESPONSE_TYPES,
    SIGNING_ALGS,
)
from tokenserver.identity import claims
from tokenserver.oauth import pkce
from tokenserver.oauth.authorization_request import PROMPTS
from tokenserver.oauth.client_authentication import ASSERTION_ALGS
from tokenserver.oauth.endpoints.jwks import cached
from tokenserver.oauth.endpoints.request import Server
from tokenserver.oauth.grants import GRANTS
from tokenserver.oauth.response_modes import RESPONSE_MODES
from tokenserver.oauth.scope import KNOWN, to_text
from tokenserver.oauth.subject import SUBJECT_TYPES
from tokenserver.tokens import id_token
from tokenserver.tokens.access_token import ACR_VALUES
from tokenserver.web.language import LANGUAGES


def view(server: Server) -> Response:
    body = json.dumps(document(server)).encode()
    return cached(Response(body, mimetype="application/json"), hashlib.sha256(body).hexdigest()[:32], 300)


def _is_open(server: Server, key: str) -> bool:
    return key != "registration_endpoint" or server.settings.client_registration != "closed"


def document(server: Server) -> dict[str, Any]:
    issuer = server.settings.issuer
    algs = list(SIGNING_ALGS)
    methods = sorted(AUTH_METHODS)
    confidential = sorted(AUTH_METHODS - {"none"})
    assertion_algs = [alg for each in ASSERTION_ALGS.values() for alg in each]
    return {
        "issuer": issuer,
        **{key: issuer + path for key, path in server.endpoint_paths.items() if _is_open(server, key)},
        # RFC 8414 section 2: what tokens are issued by, at the authorization endpoint (`implicit`) too.
        "grant_types_supported": sorted(
            {*GRANTS, *(each for needed in RESPONSE_TYPES.values() for each in needed)}
        ),
        "response_types_supported": list(RESPONSE_TYPES),
        "response_modes_supported": list(RESPONSE_MODES),
        "code_challenge_methods_supported": list(pkce.METHODS),
        "prompt_values_supported": list(PROMPTS),
        # RFC 9207 section 3
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": to_text(KNOWN).split(),
        "ui_locales_supported": list(LANGUAGES),
        "subject_types_supported": list(SUBJECT_TYPES),
        "id_token_signing_alg_values_supported": algs,
        "id_token_encryption_alg_values_supported": list(KEY_MANAGEMENT_ALGS),
        "id_token_encryption_enc_values_supported": list(CONTENT_ENCRYPTION_ALGS),
        "userinfo_signing_alg_values_supported": algs,
        # RFC 9701 section 7
        "introspection_signing_alg_values_supported": algs,
        "acr_values_supported": list(ACR_VALUES),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": assertion_algs,
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": assertion_algs,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": assertion_algs,
        "claims_supported": [*id_token.CLAIMS, *claims.NAMES],
        "claim_types_supported": ["normal"],
        "claims_parameter_supported": True,
        "request_parameter_supported": True,
        "request_uri_parameter_supported": True,
        "require_request_uri_registration": True,
        "request_object_signing_alg_values_supported": algs,
        # Back-Channel Logout section 2.1, Front-Channel Logout section 3: and `sid` in both, always.
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "frontchannel_logout_supported": True,
        "frontchannel_logout_session_supported": True,
    }
