"""Commands that get a new client its first token, ready to paste."""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from shlex import quote
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tokenserver.clients.registry import BUILTIN
from tokenserver.oauth.endpoints import path_of
from tokenserver.web.language import marked


class Step(NamedTuple):
    """`what`: in English, as the catalogue has it. `text`: a command, or an address to open."""

    what: str
    text: str


def steps(client: Mapping[str, Any], secret: str | None, issuer: str) -> list[Step]:
    """`client`: as REST describes it."""
    if client["client_id"] in BUILTIN:
        return []
    grant_types = client["grant_types"]
    if "authorization_code" in grant_types and client["redirect_uris"]:
        return _of_code(client, secret, issuer)
    if "client_credentials" in grant_types:
        form = {"grant_type": "client_credentials"}
        return [Step(marked("Get a token"), _curl(issuer + path_of("token_endpoint"), client, secret, form))]
    for grant_type in grant_types:
        if grant_type.endswith(":device_code"):
            return _of_device(client, secret, issuer, grant_type)
    return []


def _of_code(client: Mapping[str, Any], secret: str | None, issuer: str) -> list[Step]:
    verifier = secrets.token_urlsafe(48)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    redirect_uri = client["redirect_uris"][0]
    query = {
        "response_type": "code",
        "client_id": client["client_id"],
        "redirect_uri": redirect_uri,
        "scope": client["scope"],
        "state": secrets.token_urlsafe(12),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    form = {
        "grant_type": "authorization_code",
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
        "code": "CODE",
    }
    sent = {name: value for name, value in query.items() if value}
    return [
        Step(
            marked("Open in a browser, and take the code from the address that you come back to"),
            f"{issuer}{path_of('authorization_endpoint')}?{urlencode(sent)}",
        ),
        Step(
            marked("Within a minute, put it in the place of CODE"),
            _curl(issuer + path_of("token_endpoint"), client, secret, form),
        ),
    ]


def _of_device(client: Mapping[str, Any], secret: str | None, issuer: str, grant_type: str) -> list[Step]:
    form = {"grant_type": grant_type, "device_code": "DEVICE_CODE"}
    asked = {"scope": client["scope"]} if client["scope"] else {}
    return [
        Step(
            marked("Ask for a code; its user types it in at the address in the answer"),
            _curl(issuer + path_of("device_authorization_endpoint"), client, secret, asked),
        ),
        Step(
            marked("Then put device_code in the place of DEVICE_CODE"),
            _curl(issuer + path_of("token_endpoint"), client, secret, form),
        ),
    ]


def _curl(url: str, client: Mapping[str, Any], secret: str | None, form: Mapping[str, str]) -> str:
    """`secret` None: a word stands in its place."""
    is_public = client["token_endpoint_auth_method"] == "none"
    sent = ({"client_id": client["client_id"]} if is_public else {}) | dict(form)
    user = "" if is_public else f" -u {quote(client['client_id'] + ':' + (secret or 'SECRET'))}"
    fields = "".join(f" \\\n  --data-urlencode {quote(f'{name}={value}')}" for name, value in sent.items())
    return f"curl{user}{fields} \\\n  {quote(url)}"
