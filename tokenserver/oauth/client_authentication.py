"""Client authentication (RFC 6749 section 2.3): exactly one method, the one that the client registered.

By a secret in the header or in the form, by a JWT (RFC 7523, OpenID Connect Core section 9), or, of public clients,
by the name alone.
"""

import binascii
import hashlib
import hmac
import logging
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from tokenserver.clients import client_secret, signed_jwt
from tokenserver.clients.keys import ClientKeys
from tokenserver.clients.metadata import ASSERTION_METHODS, SECRET_ALGS, SIGNING_ALGS
from tokenserver.clients.registry import Client, Clients
from tokenserver.clients.signed_jwt import LEEWAY, InvalidJwt
from tokenserver.oauth.client_limits import ClientLimits
from tokenserver.oauth.errors import InvalidClient, InvalidRequest
from tokenserver.oauth.models import UsedAssertion
from tokenserver.storage.sql import Database, Transaction, utc_now
from tokenserver.web.request_context import current

logger = logging.getLogger("tokenserver.oauth")

# RFC 7523 section 2.2
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_ALGS: Final[Mapping[str, tuple[str, ...]]] = {
    "private_key_jwt": SIGNING_ALGS,
    "client_secret_jwt": SECRET_ALGS,
}
# RFC 8725 section 3.11. The last one: draft-ietf-oauth-rfc7523bis.
ASSERTION_TYPES: Final = frozenset({"", "jwt", "client-authentication+jwt"})
# RFC 7523 section 3: an exp unreasonably far in the future may be refused. So long must a jti be remembered.
MAX_LIFETIME: Final = 3600
MAX_JTI: Final = 255
# Of the clocks of our nodes.
SKEW: Final = 60


class Presented(NamedTuple):
    """What a request says. `secret`: the assertion, where `method` is "assertion"."""

    client_id: str
    secret: str
    method: str


class ClientAuthentication:
    """`issuer` and `token_endpoint`: URLs that assertions may be addressed to."""

    def __init__(
        self,
        clients: Clients,
        keys: ClientKeys,
        database: Database,
        limits: ClientLimits,
        *,
        issuer: str,
        token_endpoint: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clients = clients
        self._keys = keys
        self._database = database
        self._limits = limits
        self._issuer = issuer
        self._token_endpoint = token_endpoint
        self._clock = clock

    def authenticate(self, authorization: str | None, parameters: Mapping[str, str], path: str = "") -> Client:
        """The client. An assertion is used up; in the same request it may be looked at again.

        `path`: of the endpoint that was asked. Raises StoreUnavailable, InvalidRequest for two methods at once,
        InvalidClient, with one and the same message, for an unknown client, a wrong secret, a wrong method.
        TooManyRequests after many of those.
        """
        presented = _presented(authorization, parameters)
        self._limits.require_trust(presented.client_id)
        try:
            return self._authenticated(presented, path)
        except InvalidClient:
            self._limits.failed(presented.client_id)
            raise

    def _authenticated(self, presented: Presented, path: str) -> Client:
        client = self._clients.find(presented.client_id)
        if client is None:
            client_secret.matches(presented.secret, None)  # the same work as for a known one
            raise InvalidClient(reason="unknown_client")
        method = client.token_endpoint_auth_method
        if method in ASSERTION_METHODS and presented.method == "assertion":
            self._check_assertion(client, presented.secret, path)
        elif method != presented.method:
            raise InvalidClient(reason="wrong_authentication_method")
        elif method != "none" and not client_secret.matches(presented.secret, client.client_secret_digest):
            raise InvalidClient(reason="wrong_secret")
        return client

    def purge(self, limit: int = 1000) -> int:
        """Forget used assertions that are expired, at most `limit`; how many."""

        def expired(tx: Transaction) -> int:
            query = select(UsedAssertion.digest).where(UsedAssertion.expires_at < utc_now())
            digests = tx.scalars(query.limit(limit)).all()
            tx.execute(delete(UsedAssertion).where(UsedAssertion.digest.in_(digests)))
            return len(digests)

        return self._database.write(expired)

    def _check_assertion(self, client: Client, assertion: str, path: str) -> None:
        try:
            claims = self._verified(client, assertion)
            self._check_claims(client, claims, path)
        except InvalidJwt as error:
            logger.info("an assertion of client %s is refused: %s", client.client_id, error)
            raise InvalidClient(reason="wrong_assertion") from None
        self._use_up(client.client_id, claims["jti"], claims["exp"])

    def _verified(self, client: Client, assertion: str) -> dict[str, Any]:
        method = client.token_endpoint_auth_method
        registered = client.metadata.token_endpoint_auth_signing_alg
        algs = [alg for alg in ASSERTION_ALGS[method] if registered in {None, alg}]
        if method == "private_key_jwt":
            return self._keys.verify(client, assertion, algs=algs, typ=ASSERTION_TYPES)
        jwt = signed_jwt.parse(assertion, algs=algs, typ=ASSERTION_TYPES)
        secret = self._clients.shared_secret(client)
        if secret is None:
            logger.error("the secret of client %s can't be opened any more; rotate it", client.client_id)
            raise InvalidJwt("no secret")
        # OpenID Connect Core section 10.1: the key is the secret as it is spelled, in UTF-8.
        if not hmac.compare_digest(hmac.digest(secret.encode(), jwt.signing_input, "sha256"), jwt.signature):
            raise InvalidJwt("wrong MAC")
        return jwt.claims(self._clock())

    def _check_claims(self, client: Client, claims: Mapping[str, Any], path: str) -> None:
        """RFC 7523 section 3; OpenID Connect Core section 9, which makes `jti` required."""
        if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
            raise InvalidJwt("iss or sub is not the client")
        self._check_audience(client, claims.get("aud"), path)
        if "exp" not in claims:
            raise InvalidJwt("exp is missing")
        if claims["exp"] > self._clock() + MAX_LIFETIME + LEEWAY:
            raise InvalidJwt("exp lies too far ahead")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
            raise InvalidJwt("jti is missing or unusable")

    def _check_audience(self, client: Client, aud: object, path: str) -> None:
        # FAPI 2.0 Security Profile section 5.3.2.1: the issuer, as a string: whoever else is named could use it.
        if client.metadata.assertion_audience == "issuer":
            if aud != self._issuer:
                raise InvalidJwt("aud is not exactly the issuer")
            return
        # OpenID Connect Core section 9: the token endpoint's URL. RFC 9126 section 2: the issuer, or the endpoint
        # that is asked, too.
        ours = {self._issuer, self._token_endpoint, *([self._issuer + path] if path else [])}
        named = aud if isinstance(aud, list) else [aud]
        if not all(isinstance(each, str) for each in named) or ours.isdisjoint(named):
            raise InvalidJwt("aud is not this server")

    def _use_up(self, client_id: str, jti: str, exp: float) -> None:
        digest = hashlib.sha256(f"{client_id}\0{jti}".encode("utf-8", "surrogatepass")).digest()
        if current().assertion == digest:
            return
        expires_at = datetime.fromtimestamp(exp, UTC) + timedelta(seconds=LEEWAY + SKEW)
        try:
            self._database.write(lambda tx: tx.add(UsedAssertion(digest=digest, expires_at=expires_at)))
        except IntegrityError:
            raise InvalidClient(reason="used_assertion", is_certain=True) from None
        current().assertion = digest


def _presented(authorization: str | None, parameters: Mapping[str, str]) -> Presented:
    client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
    assertion = parameters.get("client_assertion")
    has_assertion = assertion is not None or "client_assertion_type" in parameters
    # RFC 6749 section 2.3: not more than one method in a request. The id alone is no method.
    if (authorization is not None) + (secret is not None) + has_assertion > 1:
        raise InvalidRequest("Use one way of client authentication.")
    if authorization is not None:
        named, secret = _basic(authorization)
        if client_id not in {None, named}:
            raise InvalidRequest("The client_id differs from the authenticated client.")
        return Presented(named, secret, "client_secret_basic")
    if has_assertion:
        if assertion is None or parameters.get("client_assertion_type") != ASSERTION_TYPE:
            raise InvalidClient(reason="wrong_assertion_type")
        named = _named(assertion)
        # RFC 7521 section 4.2: the client_id, though not needed, must be that of the assertion.
        if client_id not in {None, named}:
            raise InvalidClient(reason="wrong_assertion")
        return Presented(named, assertion, "assertion")
    if client_id is None:
        raise InvalidClient(reason="no_credentials")
    return Presented(client_id, secret or "", "none" if secret is None else "client_secret_post")


def _named(assertion: str) -> str:
    """Whose it claims to be (RFC 7523 section 3, point 2)."""
    try:
        jwt = signed_jwt.parse(assertion, algs=(*SIGNING_ALGS, *SECRET_ALGS), typ=ASSERTION_TYPES)
        named = jwt.unchecked_claims().get("sub")
    except InvalidJwt as error:
        logger.info("an assertion is refused: %s", error)
        raise InvalidClient(reason="wrong_assertion") from None
    if not isinstance(named, str):
        raise InvalidClient(reason="wrong_assertion")
    return named


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
    value = value.replace(b"+", b" ")
    return (unquote_to_bytes(value) if b"%" in value else value).decode("utf-8")
