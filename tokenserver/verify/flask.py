"""Guards the views of a Flask application by access tokens (RFC 6750)."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

from flask import Flask, Response, after_this_request, current_app, g, jsonify, request
from flask.typing import ResponseReturnValue

from tokenserver.verify.access_token import Verifier
from tokenserver.verify.authentication import ANY, Authentication
from tokenserver.verify.bearer import credentials, in_query
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import MissingCredentials, Refusal, TokenError, Unavailable, check_scopes

P = ParamSpec("P")
R = TypeVar("R")
EXTENSION: Final = "tokenserver.verify"
FORM: Final = "application/x-www-form-urlencoded"


class Guard:
    """What `requires` and `optional` ask, one per application.

    `authorize` gets the claims and the scopes of the view and may raise; whether the token's scope covers them is
    checked after it, so that a token that it finds dead is answered with 401. `on_error` answers a refusal in the
    application's own words, in place of RFC 6750's.
    """

    def __init__(
        self,
        verifier: Verifier,
        authorize: Callable[[Claims, tuple[str, ...]], None] | None = None,
        on_error: Callable[[Refusal], ResponseReturnValue] | None = None,
    ) -> None:
        self.verifier = verifier
        self.authorize = authorize
        self.on_error = on_error

    def init_app(self, app: Flask) -> None:
        app.extensions[EXTENSION] = self
        answer = self.on_error or self.answer
        app.register_error_handler(TokenError, answer)
        app.register_error_handler(Unavailable, answer)

    def answer(self, refusal: Refusal) -> Response:
        """RFC 6750 section 3. The realm is the audience: it says which tokens are meant."""
        response = jsonify(refusal.body())
        response.status_code = refusal.status
        response.headers.update(refusal.headers(self.verifier.audience))
        return response

    def admit(self, scopes: tuple[str, ...], authentication: Authentication = ANY) -> Claims:
        """The claims of this request's token, or the refusal of this request."""
        claims = self.verifier.verify(_token())
        if self.authorize is not None:
            self.authorize(claims, scopes)
        claims.require(*scopes)
        self.verifier.require(claims, authentication)
        return claims


def _token() -> str:
    query = request.query_string.decode("latin-1")
    # RFC 6750 section 2.2: the form parameter exists in this content type alone; other bodies stay unread.
    in_form = request.mimetype == FORM and "access_token" in request.form
    return credentials(request.headers.get("Authorization"), elsewhere=in_form or in_query(query))


def _guard() -> Guard:
    guard: Guard | None = current_app.extensions.get(EXTENSION)
    if guard is None:
        raise RuntimeError("this application has no Guard: call Guard(verifier).init_app(app)")
    return guard


def requires(
    *scopes: str, acr_values: Sequence[str] = (), max_age: int | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The view needs a valid token whose scope covers all `scopes`; without any, a valid token is enough.

    `acr_values`, `max_age` (s): how, and how lately, its user must have signed in (RFC 9470).
    """
    needed, authentication = check_scopes(scopes), Authentication.of(acr_values, max_age)
    return _guarded(needed, lambda: _guard().admit(needed, authentication))


def optional() -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Guests pass without claims. Whoever sends a token must send a good one."""
    return _guarded(None, _admit_or_guest)


def _admit_or_guest() -> Claims | None:
    # RFC 9111 section 4.1: a cache must not answer a user with what a guest was shown.
    after_this_request(_vary)
    try:
        return _guard().admit(())
    except MissingCredentials:
        return None


def _vary(response: Response) -> Response:
    response.vary.add("Authorization")
    return response


def _guarded(
    needed: tuple[str, ...] | None, admit: Callable[[], Claims | None]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            g.claims = admit()
            return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

        # Read by tests and by the API description: the scopes, or None where a token is optional.
        cast(Any, guarded).__requires__ = needed
        return guarded

    return decorate


def find_claims() -> Claims | None:
    """The claims of this request; None for a guest."""
    return cast(Claims | None, g.get("claims"))


def current_claims() -> Claims:
    """The claims of this request, in a view that has `requires`."""
    claims = find_claims()
    if claims is None:
        raise RuntimeError("this request carries no verified token")
    return claims
