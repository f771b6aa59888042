from typing import Any, Final

from marshmallow import Schema, fields, validate

from tokenserver.identity import claim_values
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


def _block(**options: Any) -> fields.String:
    return text(claim_values.MAX_BLOCK, r"[^\x00-\x09\x0b\x0c\x0e-\x1f\x7f]*", "No control characters.", **options)


class AddressSchema(Schema):
    """OpenID Connect Core section 5.1.1."""

    formatted = _block(metadata={"optional": True})
    street_address = _block(metadata={"optional": True})
    locality = _text(claim_values.MAX_TEXT, metadata={"optional": True})
    region = _text(claim_values.MAX_TEXT, metadata={"optional": True})
    postal_code = _text(claim_values.MAX_TEXT, metadata={"optional": True})
    country = _text(claim_values.MAX_TEXT, metadata={"optional": True})


EXAMPLES: Final = {
    "given_name": "Ann",
    "family_name": "Archer",
    "middle_name": "May",
    "nickname": "annie",
    "profile": "https://ann.example/",
    "picture": "https://ann.example/me.png",
    "website": "https://ann.example/blog",
    "gender": "female",
    "birthdate": "1990-02-28",
    "zoneinfo": "Europe/Berlin",
    "locale": "de-DE",
    "phone_number": "+4930123456",
    "address": {"locality": "Berlin", "country": "Germany"},
}


def _claims(**options: Any) -> dict[str, fields.Field[Any]]:
    """OpenID Connect Core section 5.1; what each may be, `identity.claim_values` decides."""
    lengths = dict.fromkeys(claim_values.TEXTS, claim_values.MAX_TEXT)
    lengths |= dict.fromkeys(("profile", "picture", "website"), claim_values.MAX_URL)

    def optional(name: str) -> dict[str, Any]:
        return options | {"metadata": {"optional": True, "example": EXAMPLES[name]}}

    texts: dict[str, fields.Field[Any]] = {name: _text(limit, **optional(name)) for name, limit in lengths.items()}
    return texts | {"address": fields.Nested(AddressSchema, **optional("address"))}


class ProfileSchema(Schema.from_dict(_claims(allow_none=True))):  # type: ignore[misc]
    """What is left out stays; null removes it."""

    username = _text(64)
    email = _text(254)
    name = _text(200, allow_none=True)
    password = fields.String(validate=validate.Length(max=1024))
    current_password = fields.String(validate=validate.Length(max=1024))
    otp = fields.String(
        validate=validate.Length(1, 64),
        metadata={"description": "With a second factor: a code of the authenticator app, or a recovery code."},
    )


class UserSchema(Schema.from_dict(_claims())):  # type: ignore[misc]
    """With the claims that are known of the user (OpenID Connect Core section 5.1)."""

    id = fields.UUID()
    username = fields.String()
    email = fields.String()
    email_verified = fields.Boolean()
    name = fields.String(allow_none=True)
    phone_number_verified = fields.Boolean(metadata={"optional": True})
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
