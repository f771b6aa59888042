from typing import Any, Final

from marshmallow import Schema, fields, validate

from tokenserver.identity.people import ACTIVE, DISABLED
from tokenserver.web.fields import text
from tokenserver.web.pagination import PageQuerySchema

STATUS = validate.OneOf([ACTIVE, DISABLED])


LINE: Final = r"[^\x00-\x1f\x7f]*"


def _text(limit: int, **options: Any) -> fields.String:
    return text(limit, LINE, "No control characters.", **options)


class RegistrationSchema(Schema):
    """Lengths only keep the work small; what a name or a password may be, `identity.people` decides."""

    username = _text(64, required=True)
    email = _text(254, required=True)
    password = fields.String(required=True, validate=validate.Length(max=1024))
    name = _text(200)


class ProfileSchema(Schema):
    username = _text(64)
    email = _text(254)
    name = _text(200, allow_none=True)
    password = fields.String(validate=validate.Length(max=1024))
    current_password = fields.String(validate=validate.Length(max=1024))


class UserSchema(Schema):
    id = fields.UUID()
    username = fields.String()
    email = fields.String()
    name = fields.String(allow_none=True)
    status = fields.String()
    roles = fields.List(fields.String())
    permissions = fields.List(fields.String())
    created_at = fields.AwareDateTime(format="iso")
    updated_at = fields.AwareDateTime(format="iso")


class UserPageSchema(Schema):
    items = fields.List(fields.Nested(UserSchema))
    next_cursor = fields.String(allow_none=True)


class UserQuerySchema(PageQuerySchema):
    q = fields.String(
        load_default="",
        validate=validate.Length(max=254),
        metadata={"description": "A part of the user name, the e-mail address or the name."},
    )
    status = fields.String(
        load_default=None, validate=STATUS, metadata={"description": "Only those of this status."}
    )


class RolesSchema(Schema):
    """Names of roles; one that is named twice counts once."""

    roles = fields.List(
        fields.String(validate=validate.Length(max=64)),
        required=True,
        validate=validate.Length(max=10_000),
        metadata={"example": ["user", "premium"]},
    )


class StatusSchema(Schema):
    status = fields.String(required=True, validate=STATUS)


class SessionSchema(Schema):
    id = fields.UUID()
    client_id = fields.String()
    created_at = fields.AwareDateTime(format="iso")
    last_used_at = fields.AwareDateTime(format="iso")
    expires_at = fields.AwareDateTime(format="iso")
    address = fields.String(allow_none=True)
    user_agent = fields.String(allow_none=True)
    current = fields.Boolean()


class SessionPageSchema(Schema):
    items = fields.List(fields.Nested(SessionSchema))
    next_cursor = fields.String(allow_none=True)
