from marshmallow import Schema, fields, validate


class LoginSchema(Schema):
    """No lower bounds: what can't be right is answered like what is wrong."""

    login = fields.String(required=True, validate=validate.Length(max=320))
    password = fields.String(required=True, validate=validate.Length(max=1024))
    otp = fields.String(
        validate=validate.Length(1, 64),
        metadata={"description": "With a second factor: a code of the authenticator app, or a recovery code."},
    )


class RefreshSchema(Schema):
    refresh_token = fields.String(required=True, validate=validate.Length(max=1024))


class EmailSchema(Schema):
    email = fields.String(required=True, validate=validate.Length(max=254))


class LinkSchema(Schema):
    """`token`: what stands in the link."""

    token = fields.String(required=True, validate=validate.Length(max=1024))


class NewPasswordSchema(LinkSchema):
    password = fields.String(required=True, validate=validate.Length(max=1024))


class TokenSchema(Schema):
    """RFC 6749 section 5.1."""

    access_token = fields.String()
    token_type = fields.String()
    expires_in = fields.Integer()
    refresh_token = fields.String()
    scope = fields.String()
