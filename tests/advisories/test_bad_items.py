"""Lists whose items are all wrong: marshmallow CVE-2025-68480, where each of them cost more than the one before."""

import pytest

from tests.answers import refused
from tests.conftest import ADMIN_PASSWORD, Api, bearer

KIB_64 = 64 * 1024


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("POST", "/roles", '{"name": "x", "permissions": [%s]}'),
        ("PUT", "/roles/user/permissions", '{"permissions": [%s]}'),
        ("POST", "/clients", '{"redirect_uris": [%s]}'),
    ],
)
def test_a_body_bounds_them_and_the_answer_names_a_few(api: Api, method: str, path: str, template: str):
    headers = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    kind = "application/json"
    as_many_as_fit = template % ",".join(["[]"] * 21_000)
    assert KIB_64 - 4096 < len(as_many_as_fit) < KIB_64
    response = api.http.open(path, method=method, data=as_many_as_fit, content_type=kind, headers=headers)
    assert 1 <= len(refused(response, 422, "validation_failed").json["errors"]) <= 20
    assert len(response.data) < 8192
    response = api.http.open(
        path, method=method, data=template % ",".join(["[]"] * 50_000), content_type=kind, headers=headers
    )
    refused(response, 413, "body_too_large")
