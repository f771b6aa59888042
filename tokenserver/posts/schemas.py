from typing import Final

from marshmallow import Schema, fields

from tokenserver.web.fields import TrueOrFalse, text

# Without Unicode's control characters (Cc) and its separators of lines and paragraphs. Read alike by ECMA-262.
TITLE: Final = r"(?!\s+$)[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"
BODY: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*"


class NewPostSchema(Schema):
    title = text(200, TITLE, "One line without control characters, and not only white space.", required=True)
    body = text(20_000, BODY, "No control characters but line breaks and tabs.", required=True)
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
