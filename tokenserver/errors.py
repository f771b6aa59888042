"""The error tree. No HTTP in it: `web.problems` and `oauth.errors` say how each is rendered.

    TokenserverError
    ├── ConfigurationError      the start is refused; one line says which setting and why
    ├── Unavailable             try again later; nothing was decided
    │   ├── StoreUnavailable    SQL or Redis is away
    │   ├── ClockWrong          this node's clock differs from those of the stores
    │   └── Overloaded          the password hashing queue is full
    ├── TooManyRequests         a rate limit
    └── Refused                 the request can't be granted as it is
        ├── Invalid             fields are wrong, each with its message
        ├── Unauthenticated     who are you
        ├── Forbidden           known, but not allowed
        ├── NotFound
        ├── Conflict
        └── PreconditionFailed  somebody else changed it meanwhile

Every error has two audiences: `code` and `public` go to the client, `private` goes to the log.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class FieldError(NamedTuple):
    """One wrong field of a request: its path in the body ("email", "roles.0") and a sentence."""

    field: str
    message: str


class TokenserverError(Exception):
    """`code`: stable snake_case word. `public`: a fixed sentence, never made from input."""

    code = "internal_error"
    public = "The server met an unexpected condition."

    def __init__(self, public: str | None = None, *, code: str | None = None, private: str = "") -> None:
        self.public = public or self.public
        self.code = code or self.code
        self.private = private
        super().__init__(private or self.public)

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it holds: the constructors below take other things.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[TokenserverError], args: tuple[object, ...], members: dict[str, Any]) -> TokenserverError:
    """An error that comes from another process."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(members)
    return error


class ConfigurationError(TokenserverError):
    code = "configuration_error"


class Unavailable(TokenserverError):
    """`retry_after`: seconds after which a retry makes sense."""

    code = "temporarily_unavailable"
    public = "The server can't decide this right now. Try again."
    retry_after = 1


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    public = "A store that this request needs is not available. Try again."

    def __init__(self, store: str, private: str = "") -> None:
        self.store = store
        super().__init__(private=f"{store}: {private}")


class ClockWrong(Unavailable):
    code = "clock_wrong"
    public = "The clock of this server is wrong. Try again: another one may answer."
    retry_after = 5

    def __init__(self, private: str) -> None:
        super().__init__(private=f"the clock of this node: {private}")


class Overloaded(Unavailable):
    code = "overloaded"
    public = "Too many sign-ins at this moment. Try again."


class TooManyRequests(TokenserverError):
    code = "too_many_requests"
    public = "Too many requests. Slow down."

    def __init__(self, retry_after: int, public: str | None = None) -> None:
        self.retry_after = max(1, retry_after)
        super().__init__(public)


class Refused(TokenserverError):
    code = "refused"


class Invalid(Refused):
    code = "validation_failed"
    public = "The request has missing, wrong or unknown fields."

    def __init__(self, errors: Sequence[FieldError], public: str | None = None, *, code: str | None = None) -> None:
        self.errors = list(errors)
        super().__init__(public, code=code)


class Unauthenticated(Refused):
    code = "authentication_required"
    public = "This request needs a valid access token."


class MetricsClosed(Unauthenticated):
    code = "metrics_token_required"
    public = "The metrics need a token of their own."


class Forbidden(Refused):
    code = "forbidden"
    public = "This is not allowed."


class NotFound(Refused):
    code = "not_found"
    public = "There is nothing here."


class Conflict(Refused):
    code = "conflict"
    public = "This contradicts what is stored."


class PreconditionFailed(Refused):
    code = "precondition_failed"
    public = "The resource was changed meanwhile. Read it again."
