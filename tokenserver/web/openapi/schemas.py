"""marshmallow schemas as JSON Schema components, through apispec: what a body may hold, what an answer does hold.

A field's `metadata` may have `description`, `example`, and `optional`: it may be missing from an answer.
"""

from collections.abc import Mapping
from itertools import chain, count
from typing import Any, Final, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

Json = dict[str, Any]
VERSION: Final = "3.1.0"


class Bodies(OpenAPIConverter):
    """As they are loaded: unknown members are refused."""

    def metadata2properties(self, field: fields.Field[Any], **kwargs: Any) -> Json:
        found: Json = super().metadata2properties(field, **kwargs)
        if "example" in found:
            found["examples"] = [found.pop("example")]
        return found

    def fields2jsonschema(self, fields: Mapping[str, fields.Field[Any]], *, partial: Any = None) -> Json:
        loaded = {name: field for name, field in fields.items() if not field.dump_only}
        found: Json = super().fields2jsonschema(loaded, partial=partial)  # type: ignore[no-untyped-call]
        return found


class Answers(Bodies):
    """As they are dumped: every member is there, and a later version may add some."""

    def fields2jsonschema(self, fields: Mapping[str, fields.Field[Any]], *, partial: Any = None) -> Json:
        del partial
        dumped = {name: field for name, field in fields.items() if not field.load_only}
        found: Json = OpenAPIConverter.fields2jsonschema(self, dumped)  # type: ignore[no-untyped-call]
        always = [f.data_key or name for name, f in dumped.items() if not f.metadata.get("optional")]
        return found | {"required": always}

    def schema2jsonschema(self, schema: Schema) -> Json:
        found: Json = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        found.pop("additionalProperties", None)
        text = type(schema).__doc__
        return found | ({"description": " ".join(text.split())} if text else {})


class Schemas:
    """The components of one description. All answers before the first body: a body takes another name than they."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._answers = self._converter(Answers, "")
        self._bodies = self._converter(Bodies, "Request")

    def answer(self, schema: type[Schema]) -> Json:
        """A reference to its component."""
        reference: Json = self._answers.resolve_nested_schema(schema)  # type: ignore[no-untyped-call]
        return reference

    def body(self, schema: type[Schema]) -> Json:
        reference: Json = self._bodies.resolve_nested_schema(schema)  # type: ignore[no-untyped-call]
        return reference

    def query(self, schema: type[Schema]) -> list[Json]:
        """Its fields as parameters."""
        return list(self._bodies.schema2parameters(schema, location="query"))

    def components(self) -> dict[str, Json]:
        return dict(sorted((self._answers.spec.components.schemas | self._bodies.spec.components.schemas).items()))

    def _converter(self, kind: type[OpenAPIConverter], suffix: str) -> OpenAPIConverter:
        def name(schema: type[Schema] | Schema) -> str:
            known = type(resolve_schema_instance(schema))
            plain, domain = known.__name__.removesuffix("Schema"), known.__module__.split(".")[1].title()
            # Two domains may name theirs alike, and the same schema may stand for a body and an answer.
            tried = chain((plain, plain + suffix, domain + plain + suffix), (f"{plain}{n}" for n in count(2)))
            found = next(each for each in tried if each not in self._names)
            self._names.add(found)
            return found

        plugin = MarshmallowPlugin(schema_name_resolver=name)
        plugin.Converter = kind
        APISpec("", "", VERSION, plugins=[plugin])
        return cast("OpenAPIConverter", plugin.converter)
