import re
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validate

# Without Unicode's control characters (Cc) and its separators of lines and paragraphs. Read alike by ECMA-262.
TITLE: Final = r"(?!\s+$)[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"
BODY: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*"


def _text(limit: int, pattern: str, error: str) -> fields.String:
    whole = re.compile(pattern)

    def check(value: str) -> None:
        if not whole.fullmatch(value):  # `$`, by which the description ends it, lets a last line break pass
            raise ValidationError(error)

    return fields.String(
        required=True, validate=[validate.Length(1, limit), check], metadata={"pattern": f"^{pattern}$"}
    )


class TrueOrFalse(fields.Boolean):
    """JSON's own two words; marshmallow's takes "yes", "off" and 1 too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        del attr, data, kwargs
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class NewPostSchema(Schema):
    title = _text(200, TITLE, "One line without control characters, and not only white space.")
    body = _text(20_000, BODY, "No control characters but line breaks and tabs.")
    public = TrueOrFalse(
        load_default=True,
        metadata={"description": "False: its author alone sees it, and who moderates may delete it."},
    )


class AuthorSchema(Schema):
    id = fields.UUID()
    username = fields.String()


class PostSchema(Schema):
    id = fields.UUID()
    title = fields.String()
    body = fields.String()
    public = fields.Boolean()
    author = fields.Nested(AuthorSchema)
    created_at = fields.AwareDateTime(format="iso")


class PostPageSchema(Schema):
    items = fields.List(fields.Nested(PostSchema))
    next_cursor = fields.String(allow_none=True)
