from marshmallow import Schema, ValidationError, fields, validate


def _one_line(value: str) -> None:
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValidationError("No control characters.")


def _text(limit: int, **options: object) -> fields.String:
    return fields.String(validate=[validate.Length(min=1, max=limit), _one_line], **options)  # type: ignore[arg-type]


class RegistrationSchema(Schema):
    """Lengths only keep the work small; what a name or a password may be, `identity.people` decides."""

    username = _text(64, required=True)
    email = _text(254, required=True)
    password = fields.String(required=True, validate=validate.Length(max=1024))
    name = _text(200)


class ProfileSchema(Schema):
    username = _text(64)
    email = _text(254)
    name = fields.String(validate=[validate.Length(min=1, max=200), _one_line], allow_none=True)
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
