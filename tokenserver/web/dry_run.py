"""`?dry_run=true`: an admin's write that is carried out, measured and rolled back."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from flask import Response
from marshmallow import Schema, fields

from tokenserver.web.wire import json_response, read_query

# More users than this are counted and not named.
NAMED_USERS: Final = 100


@dataclass(frozen=True, slots=True)
class Subject:
    """A user (`id`, `username`) or a client (`id`: the client_id), and what it would gain or lose."""

    id: str
    gains: list[str]
    loses: list[str]
    username: str | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """The blast radius of a write. `user_count`: users whose permissions would change, of whom `users` names the
    first; `session_count`: live sessions that would end or whose permissions would change; `second_factors`:
    whether an authenticator app (`totp`) and how many `passkeys` would be removed, where it is about them."""

    users: list[Subject] = field(default_factory=list)
    clients: list[Subject] = field(default_factory=list)
    user_count: int = 0
    session_count: int = 0
    second_factors: Mapping[str, int] | None = None


class UserEffectSchema(Schema):
    id = fields.UUID()
    username = fields.String(allow_none=True)
    gains = fields.List(fields.String())
    loses = fields.List(fields.String())


class ClientEffectSchema(Schema):
    client_id = fields.String(attribute="id")
    gains = fields.List(fields.String())
    loses = fields.List(fields.String())


class RemovedFactorsSchema(Schema):
    totp = fields.Boolean(metadata={"description": "An authenticator app."})
    passkeys = fields.Integer()


class EffectSchema(Schema):
    """What a write would do: nothing was changed. `second_factors`: of their reset alone."""

    dry_run = fields.Boolean()
    user_count = fields.Integer()
    session_count = fields.Integer()
    users = fields.List(fields.Nested(UserEffectSchema))
    clients = fields.List(fields.Nested(ClientEffectSchema))
    second_factors = fields.Nested(RemovedFactorsSchema, metadata={"optional": True})


class DryRunSchema(Schema):
    dry_run = fields.Boolean(
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={"description": "Answer what the request would change, and change nothing."},
    )


def rehearsable(view: Callable[..., Any]) -> Callable[..., Response]:
    """Stands where `queries` would. The view gets `dry_run`; when that is true it raises `Rehearsed` at the end of
    its transaction, and the effect is answered with 200."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        dry_run = read_query(DryRunSchema)["dry_run"]
        try:
            return view(*args, dry_run=dry_run, **kwargs)
        except Rehearsed as rehearsed:
            known = {name: value for name, value in asdict(rehearsed.effect).items() if value is not None}
            return json_response(EffectSchema().dump({"dry_run": True, **known}))

    wrapper.__queries__ = DryRunSchema  # type: ignore[attr-defined]
    wrapper.__rehearsable__ = True  # type: ignore[attr-defined]
    return wrapper


class Rehearsed(Exception):
    """Raised inside the transaction, so that it is rolled back with everything that was written in it."""

    def __init__(self, effect: Effect) -> None:
        self.effect = effect
        super().__init__("rehearsed")
