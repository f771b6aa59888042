"""Errors of what people open in a browser are pages (docs: errors), with the same code and request id."""

import re

import pytest

from tests.conftest import Api
from tests.pages.conftest import policy_of, refused
from tokenserver.app import PAGES


@pytest.mark.parametrize("path", PAGES)
def test_below_every_page_errors_are_pages(api: Api, path: str):
    api.http.set_cookie("x", "y")
    page = api.http.get(f"{path}/nothing/x", headers={"X-Request-ID": "request-of-the-test"})
    elements = refused(page, 404, "not_found")
    assert elements.texts["request-id"] == "request-of-the-test"
    assert policy_of(page)["form-action"] == "'none'"
    head = api.http.head(f"{path}/nothing/x")
    assert (head.status_code, head.data, head.mimetype) == (404, b"", "text/html")


def test_of_a_wrong_method(api: Api):
    for path in ("/login", "/consent"):
        answer = api.http.delete(path)
        refused(answer, 405, "method_not_allowed")
        assert set(re.split(", ?", answer.headers["Allow"])) == {"GET", "HEAD", "OPTIONS", "POST"}
        assert api.http.head(path).status_code in {200, 404}
    refused(api.http.get("/login/sign-out"), 405, "method_not_allowed")


def test_other_paths_keep_their_tongues(api: Api):
    assert api.http.get("/nothing").mimetype == "application/problem+json"
    assert api.http.post("/oauth/token").mimetype == "application/json"
