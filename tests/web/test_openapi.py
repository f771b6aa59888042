"""The description of the API: complete, valid, and read off what the views say of themselves."""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from jsonschema import Draft202012Validator, FormatChecker
from marshmallow import Schema, fields, validate
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.answers import faults, granted
from tests.conftest import ADMIN_PASSWORD, Api, Apps, bearer
from tokenserver.access.permissions import PERMISSIONS
from tokenserver.oauth.endpoints import ENDPOINTS, introspection
from tokenserver.oauth.endpoints.description import (
    CLIENT,
    DESCRIPTIONS,
    INTROSPECTION_RESPONSE,
    OPTIONAL,
    PARAMETERS,
    described,
)
from tokenserver.oauth.errors import OAuthError
from tokenserver.oauth.grants import GRANTS
from tokenserver.verify.flask import optional, requires
from tokenserver.web.dry_run import rehearsable
from tokenserver.web.openapi import METHODS, document
from tokenserver.web.openapi.described import OWN, Described
from tokenserver.web.pagination import PageQuerySchema
from tokenserver.web.wire import gives, queries, refuses, takes

# Blueprints for people.
PAGES = {
    *("docs", "login", "consent", "device", "account", "assets"),
    *("register", "forgot_password", "reset_password", "verify_email", "console", "console_entry"),
}
# They travel in a redirect to the client alone.
REDIRECTED = {
    *("login_required", "consent_required", "unmet_authentication_requirements", "unsupported_response_type"),
    *("invalid_request_uri", "invalid_request_object", "registration_not_supported"),
}
ISSUER = "https://id.example"


# The whole


@pytest.fixture
def description(api: Api) -> dict[str, Any]:
    return granted(api.http.get("/openapi.json"))


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def resolved(description: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        _, *names = value["$ref"].split("/")
        value = description
        for name in names:
            value = value[name]
    return value


def test_it_is_valid_openapi(description: dict[str, Any]):
    assert description["openapi"] == "3.1.0"
    assert [fault.message for fault in OpenAPIV31SpecValidator(description).iter_errors()] == []


def test_every_route_is_described_and_nothing_else(api: Api, description: dict[str, Any]):
    opened_in_browsers = {path for endpoint in ENDPOINTS if endpoint.page for path in endpoint.paths}
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in api.http.application.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in PAGES and rule.rule not in opened_in_browsers
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    found = {(path, method) for path, item in description["paths"].items() for method in item}
    assert found == routes
    assert {path for path, _ in OWN | described(ISSUER).operations} <= description["paths"].keys()
    assert {method for _, method in routes} <= set(METHODS)


def test_operations_have_names_of_their_own(description: dict[str, Any]):
    names = [operation["operationId"] for _, operation in operations(description)]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["tags"] for _, operation in operations(description))


def test_every_answer_carries_a_request_id_and_every_refusal_an_example(description: dict[str, Any]):
    for name, operation in operations(description):
        for status, answer in operation["responses"].items():
            shown = resolved(description, answer)
            headers = {name: resolved(description, header) for name, header in shown["headers"].items()}
            assert headers["X-Request-ID"]["required"], name
            if status in {"401", "403"}:
                assert headers["WWW-Authenticate"]["required"], name
            if status in {"429", "503"}:
                assert headers["Retry-After"]["required"], name
            if int(status) >= 400 and name != "GET /readyz":
                oauth = " /oauth/" in name
                (media_type, content) = next(iter(shown["content"].items()))
                assert media_type == ("application/json" if oauth else "application/problem+json"), name
                narrowed = content["schema"]["allOf"][1]["properties"]["error" if oauth else "code"]
                assert narrowed["enum"] == list(content["examples"]), name


def test_examples_are_what_they_are_examples_of(description: dict[str, Any]):
    registry = Registry().with_resource("urn:d", Resource(description, DRAFT202012))
    wrong = []

    def look(name: str, content: dict[str, Any]) -> None:
        schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:d#/'))
        check = Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())
        shown = [content["example"]] if "example" in content else []
        shown += [each["value"] for each in content.get("examples", {}).values()]
        assert shown, name
        wrong.extend((name, error.json_path, error.message) for each in shown for error in check.iter_errors(each))

    for name, operation in operations(description):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for content in resolved(description, body).get("content", {}).values():
                look(name, content)
    assert wrong == []


def test_the_example_of_every_body_is_taken(api: Api, description: dict[str, Any]):
    """Refused it may be, for who asks or for what is there; not for how it looks."""
    token = api.login("admin", ADMIN_PASSWORD)["access_token"]
    wrong = {}
    for name, operation in operations(description):
        for example in operation.get("requestBody", {}).get("content", {}).get("application/json", {}).values():
            if "$ref" in example:
                continue
            method, path = name.split(" ")
            url = re.sub(r"\{\w*id\}", str(UUID(int=1)), path).replace("{role}", "none")
            response = api.http.open(url, method=method, json=example, headers=bearer(token))
            if response.status_code in {400, 413, 415, 422, 500}:
                wrong[name] = response.json
    assert wrong == {}


def test_it_is_for_everybody_to_read_and_to_keep_for_a_while(api: Api):
    response = api.http.get("/openapi.json")
    assert not faults(response)
    assert response.mimetype == "application/json"
    assert response.headers["Cache-Control"] == "public, max-age=300"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    again = api.http.get("/openapi.json", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == response.headers["ETag"]


def test_it_is_the_same_in_every_process(apps: Apps):
    """Else its ETag would change from request to request."""
    first, second = (apps().test_client().get("/openapi.json") for _ in range(2))
    assert first.data == second.data
    assert first.headers["ETag"] == second.headers["ETag"]


def test_servers_and_tokens_are_where_the_issuer_says(apps: Apps):
    client = apps(issuer="https://id.example:8443").test_client()
    found = client.get("/openapi.json", headers={"Host": "evil.example"}).json
    metadata = client.get("/.well-known/openid-configuration").json
    assert found["servers"] == [{"url": "https://id.example:8443"}]
    flows = found["components"]["securitySchemes"]["oauth2"]["flows"]
    assert {flow["tokenUrl"] for flow in flows.values()} == {metadata["token_endpoint"]}
    assert all(flow["scopes"].keys() == set(metadata["scopes_supported"]) for flow in flows.values())
    assert PERMISSIONS.items() <= flows["password"]["scopes"].items()


# The OAuth endpoints


def test_every_oauth_endpoint_has_a_description():
    assert {endpoint.paths[0]: set(endpoint.methods) for endpoint in ENDPOINTS if not endpoint.page} == {
        path: {method.upper() for method in methods} for path, methods in DESCRIPTIONS.items()
    }


def test_the_token_endpoint_takes_what_the_grants_take(description: dict[str, Any]):
    content = description["paths"]["/oauth/token"]["post"]["requestBody"]["content"]
    form = content["application/x-www-form-urlencoded"]
    kinds = {kind["properties"]["grant_type"]["const"]: set(kind["required"]) for kind in form["schema"]["oneOf"]}
    assert kinds == {
        grant_type: {"grant_type"} | grant.parameters - OPTIONAL for grant_type, grant in GRANTS.items()
    }
    taken = {name for grant in GRANTS.values() for name in grant.parameters}
    assert taken | {"grant_type", *CLIENT} == form["schema"]["properties"].keys()
    assert taken <= PARAMETERS.keys()
    assert form["examples"].keys() == GRANTS.keys()


def test_introspection_answers_with_described_members():
    assert {*introspection.CLAIMS, "active", "token_type"} == INTROSPECTION_RESPONSE["properties"].keys()


def test_every_oauth_error_is_described_somewhere(description: dict[str, Any]):
    found = {
        example
        for name, operation in operations(description)
        if " /oauth/" in name
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        for example in answer["content"]["application/json"]["examples"]
    }
    # Reserved for RFC 7009 section 2.2.1, and sent by nobody.
    known = {kind.error for kind in OAuthError.__subclasses__()}
    protected = {"authentication_required", "invalid_token", "insufficient_scope"}  # RFC 6750, of userinfo
    assert found == known - REDIRECTED | protected | {"slow_down", "temporarily_unavailable"}


# What is read off the decorators


class PartSchema(Schema):
    id = fields.UUID()


class ThingSchema(Schema):
    name = fields.String(metadata={"description": "How it is called.", "example": "lamp"})
    parts = fields.List(fields.Nested(PartSchema))
    secret = fields.String(allow_none=True, metadata={"optional": True})


class NewThingSchema(Schema):
    name = fields.String(required=True, validate=validate.Length(1, 20))
    part = fields.Nested(PartSchema)


def read_off(
    *decorators: Any, rule: str = "/things", method: str = "get", text: str | None = None
) -> dict[str, Any]:
    """The description of an application with this view alone, decorated from top to bottom."""

    def view(**_: Any) -> None:
        """Not called."""

    view.__doc__, view.__name__ = text, "get_thing"
    for decorator in reversed(decorators):
        view = decorator(view)
    app = Flask("things")
    app.add_url_rule(rule, "things.get_thing", view, methods=[method.upper()])
    found = document(app, ISSUER, Described({}, {}, {}))
    item = next(iter(found["paths"].values()))
    return found | {"operation": item[method], "path": next(iter(found["paths"]))}


def codes(description: dict[str, Any]) -> dict[str, list[str]]:
    """By status, of the one operation."""
    found = {}
    for status, answer in description["operation"]["responses"].items():
        content = resolved(description, answer).get("content", {}).get("application/problem+json")
        if content:
            found[status] = list(content["examples"])
    return found


EVERY = {"400": ["malformed_request"], "422": ["validation_failed"], "503": ["store_unavailable", "overloaded"]}


def test_a_view_that_only_gives():
    found = read_off(gives(ThingSchema))
    operation = found["operation"]
    assert (operation["operationId"], operation["tags"], operation["summary"]) == (
        "things.get_thing",
        ["things"],
        "Get thing",
    )
    assert operation["security"] == []
    assert codes(found) == EVERY
    assert "parameters" not in operation
    answer = operation["responses"]["200"]
    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert "ETag" not in answer["headers"]


def test_members_of_an_answer_are_all_there_unless_they_are_optional():
    found = read_off(gives(ThingSchema))
    thing = found["components"]["schemas"]["Thing"]
    assert thing["required"] == ["name", "parts"]
    assert "additionalProperties" not in thing
    assert thing["properties"]["secret"]["type"] == ["string", "null"]
    assert thing["properties"]["name"]["examples"] == ["lamp"]
    example = found["operation"]["responses"]["200"]["content"]["application/json"]["example"]
    assert example["name"] == "lamp"
    assert UUID(example["parts"][0]["id"])


def test_members_of_a_body_are_these_and_no_others():
    found = read_off(takes(NewThingSchema), gives(ThingSchema, 201), method="post")
    body = found["operation"]["requestBody"]
    assert body["required"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/NewThing"}
    new = found["components"]["schemas"]["NewThing"]
    assert (new["required"], new["additionalProperties"]) == (["name"], False)
    assert (new["properties"]["name"]["minLength"], new["properties"]["name"]["maxLength"]) == (1, 20)
    # The same schema in both directions is two components.
    assert new["properties"]["part"] == {"$ref": "#/components/schemas/PartRequest"}
    assert "required" not in found["components"]["schemas"]["PartRequest"]
    assert found["components"]["schemas"]["Part"]["required"] == ["id"]
    assert codes(found) == EVERY | {"413": ["body_too_large"], "415": ["unsupported_media_type"]}
    assert "201" in found["operation"]["responses"]


def test_schemas_of_one_name_are_two_components():
    namesake = type("ThingSchema", (Schema,), {"__module__": "tokenserver.other.schemas", "size": fields.Integer()})
    found = read_off(takes(namesake), gives(ThingSchema), method="put")
    schemas = found["components"]["schemas"]
    body = found["operation"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert body != "Thing"
    assert (schemas[body]["properties"].keys(), schemas["Thing"]["properties"].keys()) == (
        {"size"},
        {"name", "parts", "secret"},
    )


def test_who_may_ask():
    admitted = read_off(requires("things:read"), gives(ThingSchema))
    assert admitted["operation"]["security"] == [{"bearer": ["things:read"]}, {"oauth2": ["things:read"]}]
    assert "`things:read`" in admitted["operation"]["description"]
    assert codes(admitted) == EVERY | {
        "400": ["invalid_request", "malformed_request"],
        "401": ["authentication_required", "invalid_token"],
        "403": ["insufficient_scope", "permission_denied"],
    }
    anybody = read_off(requires(), gives(ThingSchema))
    assert anybody["operation"]["security"] == [{"bearer": []}, {"oauth2": []}]
    assert "403" not in codes(anybody)
    guests = read_off(optional(), gives(ThingSchema))
    assert guests["operation"]["security"] == [{}, {"bearer": []}, {"oauth2": []}]
    assert codes(guests)["401"] == ["invalid_token"]


def test_parameters():
    found = read_off(queries(PageQuerySchema), gives(ThingSchema), rule="/things/<uuid:thing_id>/<word>")
    assert found["path"] == "/things/{thing_id}/{word}"
    parameters = {each["name"]: each for each in found["operation"]["parameters"]}
    assert {name: each["in"] for name, each in parameters.items()} == {
        "thing_id": "path",
        "word": "path",
        "limit": "query",
        "cursor": "query",
    }
    assert parameters["thing_id"]["schema"]["format"] == "uuid"
    limit = parameters["limit"]["schema"]
    assert (limit["type"], limit["minimum"], limit["maximum"], limit["default"]) == ("integer", 1, 100, 20)
    assert parameters["limit"]["description"]
    assert codes(found)["404"] == ["not_found"]


def test_errors_of_the_view_itself_come_after_the_others():
    found = read_off(
        requires("things:read"),
        gives(None, 204),
        refuses((403, "user_required"), (404, "thing_not_found"), (429, "too_many_requests")),
        rule="/things/<thing_id>",
        method="delete",
    )
    shown = codes(found)
    assert shown["403"] == ["insufficient_scope", "permission_denied", "user_required"]
    assert (shown["404"], shown["429"]) == (["not_found", "thing_not_found"], ["too_many_requests"])
    assert "content" not in found["operation"]["responses"]["204"]


def test_versions():
    def names(description: dict[str, Any]) -> set[str]:
        return {each["name"] for each in description["operation"].get("parameters", [])}

    reading = read_off(gives(ThingSchema, etag=True))
    assert resolved(reading, reading["operation"]["responses"]["200"]["headers"]["ETag"])["required"]
    assert "If-Match" not in names(reading)
    writing = read_off(takes(NewThingSchema), gives(ThingSchema, etag=True), method="put")
    assert "If-Match" in names(writing)
    assert codes(writing)["412"] == ["precondition_failed"]
    unversioned = read_off(takes(NewThingSchema), gives(ThingSchema), method="put")
    assert "If-Match" not in names(unversioned)
    assert "412" not in codes(unversioned)
    refusing = read_off(gives(ThingSchema), refuses((412, "precondition_failed")), method="post")
    assert "If-Match" in names(refusing)


def test_a_write_takes_the_version_that_a_read_of_its_path_gives():
    app = Flask("things")

    @app.get("/things/<thing_id>")
    @gives(ThingSchema, etag=True)
    def get_thing(thing_id: str) -> None:
        pass

    @app.delete("/things/<thing_id>")
    @gives(None, 204)
    def delete_thing(thing_id: str) -> None:
        pass

    paths = document(app, ISSUER, Described({}, {}, {}))["paths"]
    assert [each["name"] for each in paths["/things/{thing_id}"]["delete"]["parameters"]] == [
        "thing_id",
        "If-Match",
    ]


def test_two_methods_of_one_view_are_two_operations():
    app = Flask("things")
    app.add_url_rule("/things", "things.get_thing", gives(ThingSchema)(lambda: None), methods=["GET", "POST"])
    item = document(app, ISSUER, Described({}, {}, {}))["paths"]["/things"]
    assert {method: operation["operationId"] for method, operation in item.items()} == {
        "get": "things.get_thing.get",
        "post": "things.get_thing.post",
    }


def test_a_rehearsal_has_an_answer_of_its_own():
    effect = {"$ref": "#/components/schemas/Effect"}
    created = read_off(takes(NewThingSchema), rehearsable, gives(ThingSchema, 201), method="post")
    answers = created["operation"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"] == effect
    assert answers["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Thing"}
    assert [each["name"] for each in created["operation"]["parameters"]] == ["dry_run"]
    changed = read_off(rehearsable, gives(ThingSchema, etag=True), method="put")
    either = changed["operation"]["responses"]["200"]
    assert either["content"]["application/json"]["schema"]["oneOf"] == [
        {"$ref": "#/components/schemas/Thing"},
        effect,
    ]
    assert either["headers"]["ETag"]["required"] is False
    deleted = read_off(rehearsable, gives(None, 204), method="delete")
    assert deleted["operation"]["responses"].keys() >= {"200", "204"}


def test_the_docstring_is_the_text():
    found = read_off(
        requires("a:b", "c:d"),
        gives(ThingSchema),
        text="Show a thing. Somebody else's\n        is not found.\n",
    )
    operation = found["operation"]
    assert operation["summary"] == "Show a thing"
    assert operation["description"] == "Somebody else's is not found. Needs `a:b` and `c:d`."
