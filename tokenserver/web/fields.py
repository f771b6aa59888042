"""Fields of JSON bodies that are stricter than marshmallow's own, and say so in the API description."""

import re
from typing import Any

from marshmallow import ValidationError, fields, validate


class TrueOrFalse(fields.Boolean):
    """JSON's own two words; marshmallow's takes "yes", "off" and 1 too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        del attr, data, kwargs
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def text(limit: int, pattern: str, error: str, **options: Any) -> fields.String:
    """1 to `limit` characters that the pattern matches from end to end; it must read alike by ECMA-262."""
    whole = re.compile(pattern)

    def check(value: str) -> None:
        if not whole.fullmatch(value):  # `$`, by which the description ends it, lets a last line break pass
            raise ValidationError(error)

    metadata = {"pattern": f"^{pattern}$"} | options.pop("metadata", {})
    return fields.String(validate=[validate.Length(1, limit), check], metadata=metadata, **options)
