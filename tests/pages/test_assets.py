"""The files of the pages: kept for a year under the address of their content, and no other file is to be had."""

import re

import pytest

from tests.answers import refused
from tests.conftest import Api
from tests.pages.conftest import shown

LINK = re.compile(r'(?:src|href)="(/pages/[^"]+)"')


def test_pages_link_to_files_that_never_change(api: Api):
    page = api.http.get("/login")
    shown(page)
    assert "http" not in page.text
    links = LINK.findall(page.text)
    assert len(links) == 2
    for link in links:
        found = api.http.get(link)
        assert found.status_code == 200
        assert found.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Set-Cookie" not in found.headers
        again = api.http.get(link, headers={"If-None-Match": found.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        assert api.http.get(link + "0").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["x", "page.html", "pages.css/x", ""])
def test_there_is_nothing_else(api: Api, name: str):
    refused(api.http.get(f"/pages/{name}"), 404, "not_found")
