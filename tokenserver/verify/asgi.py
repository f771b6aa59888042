"""Guards a whole ASGI application by access tokens (ASGI 3, RFC 6750)."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.authentication import Authentication
from tokenserver.verify.bearer import credentials, in_query
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import InvalidRequest, Refusal, check_scopes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013


def token_of(scope: Scope) -> str:
    """The token of a request. Raises MissingCredentials, InvalidRequest."""
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(sent) > 1:
        raise InvalidRequest("several Authorization headers")
    elsewhere = in_query(scope.get("query_string", b"").decode("latin-1"))
    return credentials(sent[0] if sent else None, elsewhere=elsewhere)


class ASGIVerifier:
    """Puts Claims at `scope["state"]["claims"]`, or None on the `exempt` paths, which are compared exactly.

    `acr_values`, `max_age` (s): how, and how lately, the user must have signed in (RFC 9470).
    """

    def __init__(
        self,
        app: ASGIApplication,
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            claims = None if scope["path"] in self.exempt else await self._admit(scope)
        except Refusal as refusal:
            refuse = self._close if scope["type"] == "websocket" else self._answer
            await refuse(refusal, receive, send)
            return
        # A copy: what an inner application sees must not show up in the server's own scope.
        state = {**scope.get("state", {}), "claims": claims}
        await self.app({**scope, "state": state}, receive, send)

    async def _admit(self, scope: Scope) -> Claims:
        # In a thread, because keys may have to be fetched and `check` may ask a store.
        claims = await asyncio.to_thread(self.verifier.verify, token_of(scope))
        claims.require(*self.scopes)
        self.verifier.require(claims, self.authentication)
        return claims

    async def _answer(self, refusal: Refusal, _receive: Receive, send: Send) -> None:
        body = json.dumps(refusal.body()).encode()
        headers = refusal.headers(self.verifier.audience) | {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _close(self, refusal: Refusal, receive: Receive, send: Send) -> None:
        # ASGI: closed before it was accepted, the handshake is answered 403.
        await receive()
        await send(
            {
                "type": "websocket.close",
                "code": TRY_AGAIN_LATER if refusal.status == 503 else POLICY_VIOLATION,
            }
        )
