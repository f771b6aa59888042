from datetime import UTC
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

from tokenserver.audit.events import Event
from tokenserver.audit.usage import WINDOWS
from tokenserver.web.pagination import PageQuerySchema

OUTCOMES: Final = ("success", "denied", "failed")


class Moment(fields.AwareDateTime):
    """RFC 3339, with an offset."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="iso", default_timezone=None, **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        # In a URL a + that wasn't encoded arrives as a space.
        moment = super()._deserialize(str(value).replace(" ", "+"), attr, data, **kwargs)
        try:
            return moment.astimezone(UTC)
        except (OverflowError, ValueError):
            raise ValidationError("Not a valid datetime.") from None


class LogQuerySchema(PageQuerySchema):
    actor = fields.String(metadata={"description": "Who did it: a user's id or a client_id."})
    action = fields.String(
        validate=validate.OneOf([event.value for event in Event]), metadata={"description": "What happened."}
    )
    without = fields.String(
        validate=validate.OneOf([event.value for event in Event]),
        metadata={"description": "All but what happened under this name.", "example": "access:allowed"},
    )
    outcome = fields.String(validate=validate.OneOf(OUTCOMES))
    path = fields.String(
        metadata={"description": "The path of the request, whole; with a final `*`, its beginning."}
    )
    since = Moment(metadata={"description": "Not before this moment."})
    until = Moment(metadata={"description": "Before this moment."})
    request_id = fields.String(metadata={"description": "The X-Request-ID of the answer."})


class LogEntrySchema(Schema):
    id = fields.UUID()
    at = fields.AwareDateTime(format="iso")
    action = fields.String(attribute="event")
    outcome = fields.String()
    reason = fields.String(allow_none=True)
    actor = fields.String(allow_none=True)
    client_id = fields.String(allow_none=True)
    address = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    method = fields.String(allow_none=True)
    path = fields.String(allow_none=True)
    target = fields.String(allow_none=True)
    details = fields.Dict(keys=fields.String())


class LogPageSchema(Schema):
    items = fields.List(fields.Nested(LogEntrySchema))
    next_cursor = fields.String(allow_none=True)


class SealSchema(Schema):
    """How far the log is vouched for. Null where there is no checkpoint. What it vouches for is only proven by
    `tokenserver audit verify`, which reads all of the log."""

    number = fields.Integer(allow_none=True)
    at = fields.AwareDateTime(format="iso", allow_none=True)
    kid = fields.String(allow_none=True, metadata={"description": "Of the key that signed it."})
    signature = fields.String(
        allow_none=True,
        validate=validate.OneOf(["good", "wrong", "unknown_key", None]),
        metadata={"description": "By the keys of the ring; an emergency rotation throws the old one away."},
    )
    unsealed = fields.Integer(metadata={"description": "Events that no checkpoint vouches for yet."})


class StatsQuerySchema(Schema):
    window = fields.String(
        load_default="24h",
        validate=validate.OneOf(list(WINDOWS)),
        metadata={"description": "How far back the counts go."},
    )


class RoleUsageSchema(Schema):
    role = fields.String()
    user_count = fields.Integer()
    permissions = fields.List(fields.String())


class PermissionUsageSchema(Schema):
    permission = fields.String()
    roles = fields.List(fields.String())
    holder_count = fields.Integer(metadata={"description": "Users who hold it, each once."})
    allowed = fields.Integer(metadata={"description": "Requests that needed it and had it."})
    denied = fields.Integer()


class TokenUsageSchema(Schema):
    grant_type = fields.String()
    client_id = fields.String()
    count = fields.Integer()


class DenialUsageSchema(Schema):
    endpoint = fields.String()
    reason = fields.String()
    count = fields.Integer()


class StatsSchema(Schema):
    """Counts since `since`: a window begins with a whole minute (1h) or a whole hour."""

    window = fields.String()
    since = fields.AwareDateTime(format="iso")
    until = fields.AwareDateTime(format="iso")
    roles = fields.List(fields.Nested(RoleUsageSchema))
    permissions = fields.List(fields.Nested(PermissionUsageSchema))
    tokens = fields.List(fields.Nested(TokenUsageSchema))
    tokens_with_roles_omitted = fields.Integer()
    active_sessions = fields.Integer()
    denials = fields.List(fields.Nested(DenialUsageSchema))


class KeySchema(Schema):
    kid = fields.String()
    alg = fields.String()
    state = fields.String(validate=validate.OneOf(["next", "active", "retired"]))
    created_at = fields.String()
    published_at = fields.String()
    activated_at = fields.String(allow_none=True)
    retired_at = fields.String(allow_none=True)
    remove_after = fields.String(allow_none=True)


class KeysSchema(Schema):
    items = fields.List(fields.Nested(KeySchema))
    next_cursor = fields.String(allow_none=True)


class RotationSchema(Schema):
    activated = fields.List(fields.Nested(KeySchema))
    replaced = fields.List(fields.String())
