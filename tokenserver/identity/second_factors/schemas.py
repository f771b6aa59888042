from marshmallow import Schema, fields, validate

from tokenserver.identity.schemas import LINE
from tokenserver.web.fields import text

OTP = validate.Length(1, 64)


class ReauthenticationSchema(Schema):
    """Needless after a sign-in of less than five minutes ago, with a second factor where there is one."""

    current_password = fields.String(validate=validate.Length(max=1024))
    otp = fields.String(
        validate=OTP, metadata={"description": "A code of the authenticator app, or a recovery code."}
    )


class FirstCodeSchema(Schema):
    otp = fields.String(required=True, validate=OTP, metadata={"description": "The code that the app shows."})


class EnrolmentSchema(Schema):
    """Shown this once."""

    secret = fields.String(metadata={"description": "Base32, for apps that can't read the URI."})
    uri = fields.String(metadata={"description": "For the app, usually as a QR code."})


class RecoveryCodesSchema(Schema):
    """`recovery_codes`: shown this once; none where there are some already."""

    recovery_codes = fields.List(fields.String())


class AuthenticatorAppSchema(Schema):
    confirmed_at = fields.AwareDateTime(format="iso")


class PasskeySchema(Schema):
    id = fields.UUID()
    name = fields.String()
    backed_up = fields.Boolean(
        attribute="is_backed_up", metadata={"description": "Whether it may be on several devices."}
    )
    created_at = fields.AwareDateTime(format="iso")
    last_used_at = fields.AwareDateTime(format="iso", attribute="used_at", allow_none=True)


NAME = {"required": True, "metadata": {"example": "My phone"}}


class PasskeyNameSchema(Schema):
    name = text(64, LINE, "No control characters.", **NAME)


class RegistrationSchema(Schema):
    name = text(64, LINE, "No control characters.", **NAME)
    credential = fields.Dict(
        required=True,
        metadata={"description": "What navigator.credentials.create gave, as RegistrationResponseJSON (WebAuthn)."},
    )


class CreationOptionsSchema(Schema):
    """For navigator.credentials.create, on a page of this server's own origin; good for five minutes, once."""

    options = fields.Dict(metadata={"description": "PublicKeyCredentialCreationOptionsJSON (WebAuthn)."})


class AddedPasskeySchema(PasskeySchema):
    recovery_codes = fields.List(fields.String())


class SecondFactorsSchema(Schema):
    totp = fields.Nested(AuthenticatorAppSchema, allow_none=True)
    passkeys = fields.List(fields.Nested(PasskeySchema))
    recovery_codes_left = fields.Integer()
