"""Guards single endpoints of a Starlette or FastAPI application by access tokens (RFC 6750).

`asgi` guards a whole application; this is for one whose endpoints need scopes of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.asgi import token_of
from tokenserver.verify.authentication import ANY, Authentication
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import MissingCredentials, Refusal, check_scopes


class Guard:
    """Makes what an endpoint asks for its claims: a dependency of FastAPI, or a coroutine function to await."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier

    def init_app(self, app: Starlette) -> None:
        """Refusals are answered by RFC 6750."""
        app.add_exception_handler(Refusal, self.answer)

    async def answer(self, _request: Request, refusal: Exception) -> Response:
        """Section 3. The realm is the audience: it says which tokens are meant."""
        refused = cast(Refusal, refusal)
        return JSONResponse(refused.body(), refused.status, refused.headers(self.verifier.audience))

    def requires(
        self, *scopes: str, acr_values: Sequence[str] = (), max_age: int | None = None
    ) -> Callable[[Request], Awaitable[Claims]]:
        """A valid token whose scope covers all `scopes`; without any, a valid token is enough.

        `acr_values`, `max_age` (s): how, and how lately, its user must have signed in (RFC 9470).
        """
        needed, authentication = check_scopes(scopes), Authentication.of(acr_values, max_age)

        async def claims(request: Request) -> Claims:
            return await self._admit(request, needed, authentication)

        return claims

    def optional(self) -> Callable[[Request], Awaitable[Claims | None]]:
        """None for a guest. Whoever sends a token must send a good one."""

        async def claims(request: Request) -> Claims | None:
            try:
                return await self._admit(request)
            except MissingCredentials:
                return None

        return claims

    async def _admit(
        self, request: Request, scopes: tuple[str, ...] = (), authentication: Authentication = ANY
    ) -> Claims:
        # In a thread, because keys may have to be fetched.
        claims = await asyncio.to_thread(self.verifier.verify, token_of(request.scope))
        claims.require(*scopes)
        self.verifier.require(claims, authentication)
        return claims
