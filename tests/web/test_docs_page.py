"""Swagger UI at /docs: its own files, and nothing from anywhere else."""

import re
from urllib.parse import urljoin

import pytest

from tests.answers import refused
from tests.conftest import Api, Apps
from tokenserver.web.docs_page import ASSETS, DIST

PAGE = "http://127.0.0.1:8000/docs"
LINK = re.compile(r'(?:src|href)="([^"]+)"')


def linked(api: Api) -> dict[str, str]:
    """Path with query, by file name."""
    links = [urljoin(PAGE, link) for link in LINK.findall(api.http.get("/docs").text)]
    assert all(link.startswith("http://127.0.0.1:8000/") for link in links)
    paths = [link.removeprefix("http://127.0.0.1:8000") for link in links]
    return {path.partition("?")[0].rpartition("/")[2]: path for path in paths}


def test_the_page_links_to_files_of_this_server_alone(api: Api):
    links = linked(api)
    assert links.keys() == {*ASSETS, "init.js", "openapi.json"}
    for name, path in links.items():
        response = api.http.get(path)
        assert response.status_code == 200, path
        assert response.mimetype == (ASSETS | {"init.js": "text/javascript"}).get(name, "application/json")
        if name in ASSETS:
            assert response.data == (DIST / name).read_bytes()


def test_the_page_may_do_nothing_else(api: Api):
    response = api.http.get("/docs")
    assert (response.status_code, response.mimetype) == (200, "text/html")
    # CSP level 3: no inline script, no inline style, no other host.
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script(?![^>]* src=)|<style|style=|\son\w+=", response.text)
    assert "http" not in response.text


def test_it_sends_the_description_to_nobody_for_validation(api: Api):
    script = api.http.get(linked(api)["init.js"]).text
    assert "validatorUrl: null" in script
    assert 'url: "openapi.json"' in script
    assert "http" not in script


@pytest.mark.parametrize("name", [*ASSETS, "init.js"])
def test_files_are_kept_for_a_year_under_the_address_of_their_version(api: Api, name: str):
    known = api.http.get(linked(api)[name]).headers["Cache-Control"]
    assert "max-age=31536000" in known
    assert "immutable" in known
    for other in ("", "?v=", "?v=0"):
        assert api.http.get(f"/docs/{name}{other}").headers["Cache-Control"] == "no-cache"


def test_files_that_did_not_change_are_not_sent_again(api: Api):
    first = api.http.get("/docs/swagger-ui-bundle.js")
    again = api.http.get("/docs/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/docs/x",
        "/docs/",
        "/docs/index.css",  # the package has it, the page doesn't need it
        "/docs/oauth2-redirect.html",
        "/docs/VERSION",
        "/docs/../openapi.json",
        "/docs/..%2fLICENSE",
        "/docs/%2e%2e/LICENSE",
        "/docs/init.js/x",
        "/docs/init.js%00",
    ],
)
def test_there_is_nothing_else_to_be_had(api: Api, path: str):
    refused(api.http.get(path), 404, "not_found")


def test_it_is_only_read(api: Api):
    for path in ("/docs", "/docs/init.js", "/openapi.json"):
        assert api.http.head(path).status_code == 200
        assert refused(api.http.post(path), 405, "method_not_allowed").headers["Allow"]


def test_below_a_path_the_page_finds_its_files_too(apps: Apps):
    """A proxy may serve an issuer with a path: every address is relative."""
    text = apps(issuer="https://id.example/auth").test_client().get("/docs").text
    assert not [link for link in LINK.findall(text) if link.startswith("/")]
