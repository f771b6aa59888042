from typing import Any
from uuid import UUID

from marshmallow import Schema, fields, validate

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.access.roles import CANONICAL_UUID, NAME
from tokenserver.web.pagination import PageQuerySchema


class CanonicalUuid(fields.UUID):
    """In the spelling of RFC 9562 section 4 alone."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> UUID:
        if not (isinstance(value, str) and CANONICAL_UUID.fullmatch(value)):
            raise self.make_error("invalid_uuid")
        return super()._deserialize(value, attr, data, **kwargs)


def _permissions(**options: Any) -> fields.List[str]:
    """Which ones there are, `access.roles` says; one that is named twice counts once."""
    each = fields.String(metadata={"enum": sorted(PERMISSIONS)})
    return fields.List(each, validate=validate.Length(max=1000), **options)


class NewRoleSchema(Schema):
    name = fields.String(
        required=True,
        validate=validate.Regexp(f"^{NAME}$", error="1 to 64 letters, digits and . _ : -."),
        metadata={
            "description": "Unique without regard to case; no UUID, and not `verify`.",
            "example": "premium",
        },
    )
    description = fields.String(load_default="", validate=validate.Length(max=255))
    permissions = _permissions(load_default=list)


class RolePermissionsSchema(Schema):
    permissions = _permissions(required=True)


class RoleSchema(Schema):
    id = fields.UUID()
    name = fields.String(metadata={"example": "premium"})
    description = fields.String()
    permissions = fields.List(fields.String())
    builtin = fields.Boolean()
    user_count = fields.Integer()


class RolePageSchema(Schema):
    items = fields.List(fields.Nested(RoleSchema))
    next_cursor = fields.String(allow_none=True)


class RoleQuerySchema(PageQuerySchema):
    q = fields.String(
        load_default="",
        validate=validate.Length(max=64),
        metadata={"description": "A part of the name, in any case."},
    )


class RoleMatchQuerySchema(Schema):
    role = fields.String(required=True, metadata={"description": "The name of a role."})
    role_id = CanonicalUuid(required=True)


class RoleMatchSchema(Schema):
    """`match`: whether the role of this name has this id. `role`, `role_id`: as they were asked."""

    match = fields.Boolean()
    role = fields.String()
    role_id = fields.UUID()


class PermissionSchema(Schema):
    name = fields.String(metadata={"example": "posts:create"})
    description = fields.String()


class PermissionPageSchema(Schema):
    items = fields.List(fields.Nested(PermissionSchema))
    next_cursor = fields.String(allow_none=True)


class ExplainQuerySchema(Schema):
    user = fields.String(required=True, metadata={"description": "A user name, an e-mail address or an id."})
    permission = fields.String(required=True, metadata={"example": "posts:delete:any"})
    resource = fields.String(
        load_default=None,
        metadata={"description": "The path of what it is about, such as `/posts/{id}`: owners need no permission."},
    )


class ExplainedUserSchema(Schema):
    id = fields.UUID()
    username = fields.String()
    status = fields.String()


class GrantSchema(Schema):
    """`granted_by`: a user's or client's id, or a word such as "registration" or "cli"."""

    role = fields.String()
    role_id = fields.UUID()
    granted_by = fields.String()
    granted_by_name = fields.String(allow_none=True)
    granted_at = fields.AwareDateTime(format="iso")


class NearestSchema(Schema):
    """A role that would grant it, and all that it would add to what the user holds."""

    role = fields.String()
    role_id = fields.UUID()
    adds = fields.List(fields.String())


class ExplanationSchema(Schema):
    user = fields.Nested(ExplainedUserSchema)
    permission = fields.String()
    resource = fields.String(allow_none=True)
    decision = fields.String(validate=validate.OneOf(["allow", "deny"]))
    reason = fields.String(validate=validate.OneOf(["granted", "owner", "user_disabled", "not_granted"]))
    grants = fields.List(fields.Nested(GrantSchema))
    nearest = fields.List(fields.Nested(NearestSchema))
