from typing import Any

from marshmallow import Schema, fields, validate

from tokenserver.clients import metadata as rules
from tokenserver.web.fields import TrueOrFalse
from tokenserver.web.pagination import PageQuerySchema


class Scope(fields.String):
    """RFC 6749 section 3.3: in JSON one string, its members apart by single spaces; a list when loaded."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        return text.split(" ") if text else []


class ClientMetadataSchema(Schema):
    """Types only; what a client's metadata may be, `clients.metadata` decides."""

    client_name = fields.String(load_default="", metadata={"maxLength": rules.MAX_NAME})
    redirect_uris = fields.List(
        fields.String(metadata={"maxLength": rules.MAX_URI}),
        load_default=list,
        metadata={"maxItems": rules.MAX_REDIRECT_URIS, "uniqueItems": True},
    )
    grant_types = fields.List(
        fields.String(metadata={"enum": sorted(rules.GRANT_TYPES)}), required=True, metadata={"minItems": 1}
    )
    response_types = fields.List(fields.String(), load_default=list)
    scope = Scope(load_default=list, metadata={"description": "The most that it may ask for; words and spaces."})
    token_endpoint_auth_method = fields.String(
        load_default="client_secret_basic", metadata={"enum": sorted(rules.AUTH_METHODS)}
    )
    jwks = fields.Dict(
        allow_none=True, load_default=None, metadata={"description": "Its public keys: a JWK Set (RFC 7517)."}
    )
    audience = fields.List(
        fields.String(),
        load_default=list,
        metadata={
            "maxItems": rules.MAX_AUDIENCES,
            "uniqueItems": True,
            "description": "The `aud` of its access tokens, instead of this server.",
        },
    )
    first_party = TrueOrFalse(
        load_default=False,
        metadata={"description": "True: users are not asked for consent, and it gets all that they hold."},
    )


class NewClientSchema(ClientMetadataSchema):
    client_id = fields.String(
        metadata={"pattern": f"^{rules.CLIENT_ID.pattern}$", "description": "A random one when left out."}
    )


class ClientSchema(Schema):
    client_id = fields.String()
    client_id_issued_at = fields.Integer(metadata={"description": "Seconds since 1970."})
    client_name = fields.String()
    redirect_uris = fields.List(fields.String())
    grant_types = fields.List(fields.String())
    response_types = fields.List(fields.String())
    scope = fields.String()
    token_endpoint_auth_method = fields.String()
    jwks = fields.Dict(allow_none=True)
    audience = fields.List(fields.String())
    first_party = fields.Boolean()
    created_at = fields.AwareDateTime(format="iso")
    updated_at = fields.AwareDateTime(format="iso")


class ClientSecretSchema(Schema):
    client_id = fields.String()
    client_secret = fields.String(metadata={"description": "Shown this once."})
    client_secret_expires_at = fields.Integer(metadata={"description": "0: never (RFC 7591 section 3.2.1)."})


class RegisteredClientSchema(ClientSchema):
    """With the secret, if this answer is the one that shows it."""

    client_secret = fields.String(metadata={"optional": True, "description": "Shown this once."})
    client_secret_expires_at = fields.Integer(
        metadata={"optional": True, "description": "0: never (RFC 7591 section 3.2.1)."}
    )


class ClientPageSchema(Schema):
    items = fields.List(fields.Nested(ClientSchema))
    next_cursor = fields.String(allow_none=True)


class ClientQuerySchema(PageQuerySchema):
    q = fields.String(
        load_default="",
        validate=validate.Length(max=rules.MAX_NAME),
        metadata={"description": "Part of an id or a name, in any case."},
    )
