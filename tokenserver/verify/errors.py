"""Refusals of a protected resource, as values (RFC 6750 section 3).

    Refusal
    ├── TokenError              the client has to change something
    │   ├── MissingCredentials  401, no error code: nothing was sent
    │   ├── InvalidRequest      400 invalid_request: sent in a wrong way
    │   ├── InvalidToken        401 invalid_token
    │   ├── InsufficientUserAuthentication  401 insufficient_user_authentication (RFC 9470)
    │   └── InsufficientScope   403 insufficient_scope
    └── Unavailable             503: the token can't be judged now
        ├── KeysUnavailable     without the issuer's keys
        └── RevocationsUnavailable  without a revocation list that is new enough

`description` is a fixed public sentence, never made from input; `private` is for the log alone.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

OUTSIDE_DESCRIPTION: Final = re.compile(r"[^\x20-\x21\x23-\x5B\x5D-\x7E]")
SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


def _public(text: str) -> str:
    # RFC 6750 section 3: the characters of error_description; none needs an escape in a quoted-string, so nothing
    # breaks out of the header.
    return OUTSIDE_DESCRIPTION.sub("?", text)


class Refusal(Exception):
    """What the resource answers instead of its content."""

    status = 401
    error: str | None = None
    description = "The request can't be granted."

    def __init__(self, private: str = "", *, description: str | None = None) -> None:
        self.private = private
        self.description = _public(description or self.description)
        super().__init__(private or self.description)

    def headers(self, realm: str = "api") -> dict[str, str]:
        """The header fields of the answer; `realm` names the protected resource, usually by its audience."""
        raise NotImplementedError

    def body(self) -> dict[str, str]:
        """The JSON object of the answer."""
        # RFC 6750 section 3.1: a request without credentials is told no error code or other error information.
        return {"error": self.error, "error_description": self.description} if self.error else {}


class TokenError(Refusal):
    """Base of the refusals that carry a challenge. `scope`: what would have been enough, or None. `wanted`: what
    else would have been, as parameters of the challenge."""

    scope: str | None = None
    wanted: Mapping[str, str] = MappingProxyType({})

    def challenge(self, realm: str | None = None) -> str:
        """The value of WWW-Authenticate."""
        # RFC 6750 section 3: the scheme MUST be followed by at least one parameter, hence always a realm.
        parameters = {"realm": _public(realm or "api")}
        if self.error:
            parameters |= {"error": self.error, "error_description": self.description}
        if self.scope:
            parameters["scope"] = self.scope
        parameters |= self.wanted
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())

    def headers(self, realm: str = "api") -> dict[str, str]:
        return {"WWW-Authenticate": self.challenge(realm), "Cache-Control": "no-store"}


class MissingCredentials(TokenError):
    description = "This resource needs an access token."


class InvalidRequest(TokenError):
    status = 400
    error = "invalid_request"
    description = "The access token must be sent once, in the Authorization header."


class InvalidToken(TokenError):
    error = "invalid_token"
    description = "The access token is not valid."


class InsufficientUserAuthentication(TokenError):
    """RFC 9470 section 3: the user must sign in again, in another way or just now."""

    error = "insufficient_user_authentication"
    description = "The user must sign in again or in another way."

    def __init__(self, acr_values: Sequence[str] = (), max_age: int | None = None, private: str = "") -> None:
        wanted = {"acr_values": " ".join(acr_values)} if acr_values else {}
        self.wanted = wanted if max_age is None else wanted | {"max_age": str(max_age)}
        super().__init__(private)


class InsufficientScope(TokenError):
    """`scopes`: what the resource needs."""

    status = 403
    error = "insufficient_scope"
    description = "The scope of the access token does not cover this request."

    def __init__(self, scopes: Sequence[str], private: str = "") -> None:
        self.scope = " ".join(check_scopes(scopes))
        super().__init__(private or f"needs {self.scope}")


class Unavailable(Refusal):
    """Nobody can tell now, and so nothing is accepted. `retry_after`: seconds."""

    status = 503
    error = "temporarily_unavailable"
    description = "The access token can't be checked right now. Try again."
    retry_after = 5

    def headers(self, realm: str = "api") -> dict[str, str]:  # noqa: ARG002 - the same shape for every refusal
        return {"Retry-After": str(self.retry_after), "Cache-Control": "no-store"}


class KeysUnavailable(Unavailable):
    """The issuer's keys can't be had and none are cached."""


class RevocationsUnavailable(Unavailable):
    """What was revoked meanwhile can't be known: the last list is older than may be."""


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """ValueError for what can't be a scope token (RFC 6749 section 3.3): a slip shows when the service starts."""
    if isinstance(scopes, str) or not all(SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise ValueError("scopes must be a sequence of scope tokens without spaces")
    return tuple(scopes)
