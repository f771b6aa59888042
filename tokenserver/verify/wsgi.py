"""Guards a whole WSGI application by access tokens (PEP 3333, RFC 6750)."""

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.authentication import Authentication
from tokenserver.verify.bearer import credentials, in_query
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import Refusal, check_scopes

CLAIMS: Final = "tokenserver.claims"


class WSGIVerifier:
    """Puts Claims at `environ["tokenserver.claims"]`, or None on the `exempt` paths, which are compared exactly.

    `acr_values`, `max_age` (s): how, and how lately, the user must have signed in (RFC 9470).
    """

    def __init__(
        self,
        app: WSGIApplication,
        verifier: Verifier,
        scopes: Sequence[str] = (),
        exempt: Iterable[str] = (),
        *,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
    ) -> None:
        self.app = app
        self.verifier = verifier
        self.scopes = check_scopes(scopes)
        self.authentication = Authentication.of(acr_values, max_age)
        self.exempt = frozenset(exempt)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ[CLAIMS] = None if environ.get("PATH_INFO", "") in self.exempt else self._admit(environ)
        except Refusal as refusal:
            return self._answer(refusal, start_response)
        return self.app(environ, start_response)

    def _admit(self, environ: WSGIEnvironment) -> Claims:
        elsewhere = in_query(environ.get("QUERY_STRING", ""))
        claims = self.verifier.verify(credentials(environ.get("HTTP_AUTHORIZATION"), elsewhere=elsewhere))
        claims.require(*self.scopes)
        self.verifier.require(claims, self.authentication)
        return claims

    def _answer(self, refusal: Refusal, start_response: StartResponse) -> list[bytes]:
        body = json.dumps(refusal.body()).encode()
        headers = refusal.headers(self.verifier.audience) | {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        start_response(f"{refusal.status} {HTTPStatus(refusal.status).phrase}", list(headers.items()))
        return [body]
