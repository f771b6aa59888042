from typing import Any, Final

from marshmallow import Schema, fields, validate

from tokenserver.clients import metadata as rules
from tokenserver.web.fields import TrueOrFalse
from tokenserver.web.pagination import PageQuerySchema


class Scope(fields.String):
    """RFC 6749 section 3.3: in JSON one string, its members apart by single spaces; a list when loaded."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        return text.split(" ") if text else []


DESCRIBED: Final = {
    "access_token_signed_response_alg": "Of its access tokens; null: the server's default.",
    "assertion_audience": "What `aud` of its assertions may be: the issuer alone, or the endpoint too.",
    "default_max_age": "Seconds after which its users prove again who they are (OpenID Connect).",
    "token_exchange": "Whose tokens it may exchange (RFC 8693).",
}
CHOICES: Final = {
    **dict.fromkeys((*rules.TOKEN_ALGS, "request_object_signing_alg"), rules.SIGNING_ALGS),
    "application_type": ("web", "native"),
    "assertion_audience": ("endpoint", "issuer"),
    "id_token_encrypted_response_alg": rules.KEY_MANAGEMENT_ALGS,
    "id_token_encrypted_response_enc": rules.CONTENT_ENCRYPTION_ALGS,
    "subject_type": ("public", "pairwise"),
    "token_endpoint_auth_signing_alg": (*rules.SIGNING_ALGS, *rules.SECRET_ALGS),
}


class TokenExchangeSchema(Schema):
    clients = fields.List(fields.String(), required=True, metadata={"description": "Client ids, or `*`."})
    impersonation = TrueOrFalse(required=True)
    delegation = TrueOrFalse(required=True)


def _rest() -> dict[str, fields.Field[Any]]:
    """The members that are kept together (`metadata.OPTIONAL`), each with its default."""
    return {name: _of_default(name, default) for name, default in rules.OPTIONAL.items()}


def _of_default(name: str, default: Any) -> fields.Field[Any]:
    metadata: dict[str, Any] = {"description": DESCRIBED[name]} if name in DESCRIBED else {}
    metadata["example"] = list(default) if isinstance(default, tuple) else default
    if isinstance(default, bool):
        return TrueOrFalse(load_default=default, metadata=metadata)
    if isinstance(default, tuple):
        return fields.List(fields.String(), load_default=list, metadata=metadata)
    optional: dict[str, Any] = {"load_default": default} | ({"allow_none": True} if default is None else {})
    if name == "default_max_age":
        return fields.Integer(strict=True, metadata=metadata | {"minimum": 0}, **optional)
    if name == "token_exchange":
        return fields.Nested(TokenExchangeSchema, metadata=metadata, **optional)
    if name in CHOICES:
        metadata["enum"] = [*CHOICES[name], *([None] if default is None else [])]
    return fields.String(metadata=metadata, **optional)


class ClientMetadataSchema(Schema.from_dict(_rest())):  # type: ignore[misc]
    """Types only; what a client's metadata may be, `clients.metadata` decides."""

    client_name = fields.String(load_default="", metadata={"maxLength": rules.MAX_NAME})
    redirect_uris = fields.List(
        fields.String(metadata={"maxLength": rules.MAX_URI}),
        load_default=list,
        metadata={"maxItems": rules.MAX_REDIRECT_URIS, "uniqueItems": True},
    )
    grant_types = fields.List(
        fields.String(metadata={"enum": sorted(rules.GRANT_TYPES)}),
        load_default=lambda: ["authorization_code"],  # RFC 7591 section 2
        metadata={"minItems": 1},
    )
    response_types = fields.List(
        fields.String(), load_default=list, metadata={"description": "Left out: `code`, where codes are used."}
    )
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


class ClientSchema(Schema.from_dict(_rest())):  # type: ignore[misc]
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
