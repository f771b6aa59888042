"""Request objects (OIDC Core section 6, RFC 9101): the parameters of a request as a JWT that the client signed."""

from collections.abc import Mapping
from typing import Any, Final

from flask import json

from tokenserver.clients.keys import ClientKeys, InvalidJwt
from tokenserver.clients.metadata import SIGNING_ALGS
from tokenserver.clients.registry import Client
from tokenserver.oauth.errors import InvalidRequest, InvalidRequestObject, InvalidRequestUri
from tokenserver.oauth.parameters import REPEATABLE
from tokenserver.verify.compact import decode
from tokenserver.verify.json_object import json_object
from tokenserver.web.fetch import Fetcher, FetchFailed

# RFC 9101 section 10.8: whoever uses this type gets the strict rules.
STRICT_TYP: Final = "oauth-authz-req+jwt"
ACCEPT: Final = f"application/{STRICT_TYP}, application/jwt"
MAX_BYTES: Final = 16 * 1024
# Of the JWT itself; what is no parameter doesn't become one. RFC 9101 section 4: no request object within another.
CLAIMS: Final = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "sub"})


class RequestObjects:
    def __init__(self, keys: ClientKeys, fetcher: Fetcher, issuer: str) -> None:
        self._keys = keys
        self._fetcher = fetcher
        self._issuer = issuer

    def applied(self, client: Client, sent: Mapping[str, str]) -> Mapping[str, str]:
        """The parameters that count. Raises InvalidRequestObject, InvalidRequestUri, InvalidRequest."""
        if "request" in sent and "request_uri" in sent:
            # OIDC Core section 6.2.1: only one of the two
            raise InvalidRequest("Send request or request_uri, not both.")
        if "request" in sent:
            token = sent["request"]
        elif "request_uri" in sent:
            token = self._fetched(client, sent["request_uri"])
        else:
            return sent
        return self._merged(client, sent, token)

    def _fetched(self, client: Client, uri: str) -> str:
        # Only what an admin or the client registered is ever asked for (RFC 9101 section 10.4.1): no address out of
        # a request. The fragment tells one version from another (OIDC Core section 6.2) and is never sent.
        if uri not in client.metadata.request_uris:
            raise InvalidRequestUri(reason="not_registered")
        try:
            body = self._fetcher.get(uri.partition("#")[0], accept=ACCEPT, limit=MAX_BYTES).body
            return body.decode("ascii").strip()
        except (FetchFailed, UnicodeDecodeError):
            raise InvalidRequestUri(reason="fetch_failed") from None

    def _merged(self, client: Client, sent: Mapping[str, str], token: str) -> Mapping[str, str]:
        alg = client.metadata.request_object_signing_alg
        try:
            claims = self._keys.verify(client, token, algs=(alg,) if alg else SIGNING_ALGS)
        except InvalidJwt as error:
            raise InvalidRequestObject(reason=str(error)[:60]) from None
        self._check_parties(client, claims)
        inside = {name: _text(name, value) for name, value in claims.items() if name not in CLAIMS}
        if not {"request", "request_uri"}.isdisjoint(inside):
            raise InvalidRequestObject(reason="nested")
        # OIDC Core section 6.1: these two stand outside as well, and may not differ.
        for name in ("client_id", "response_type"):
            if name in sent and name in inside and sent[name] != inside[name]:
                raise InvalidRequestObject(reason=f"other_{name}")
        outside = {name: value for name, value in sent.items() if name not in {"request", "request_uri"}}
        if _typ(token) == STRICT_TYP:
            # RFC 9101 section 6.3: only the parameters of the request object count.
            outside = {"client_id": sent["client_id"]}
        return outside | inside

    def _check_parties(self, client: Client, claims: Mapping[str, Any]) -> None:
        # OIDC Core section 6.1: iss the client, aud the server, where the claims are there.
        if claims.get("iss", client.client_id) != client.client_id:
            raise InvalidRequestObject(reason="iss")
        audience = claims.get("aud", self._issuer)
        if self._issuer not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidRequestObject(reason="aud")


def _typ(token: str) -> object:
    """Of a token that was verified."""
    return json_object(decode(token.partition(".")[0].encode("ascii"))).get("typ")


def _text(name: str, value: Any) -> str:
    """As the parameter would be sent: `max_age` is a number in a JWT, and `claims` an object."""
    if isinstance(value, str):
        text = value
    elif name in REPEATABLE and isinstance(value, list) and all(isinstance(each, str) for each in value):
        text = " ".join(value)
    elif isinstance(value, bool) or value is None or isinstance(value, float):
        raise InvalidRequestObject(reason="member_type")
    else:
        text = json.dumps(value)
    # What passes JSON and fails much later: in the database, in a redirect.
    if "\0" in text or not _is_encodable(text):
        raise InvalidRequestObject(reason="characters")
    return text


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
