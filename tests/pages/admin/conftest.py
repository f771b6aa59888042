from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask

from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api
from tests.person import Page, Person

ISSUER = "http://127.0.0.1:8000"
HOME = "/admin/console"


@dataclass
class Visitor:
    """Somebody at the console, in a browser without scripts."""

    person: Person
    app: Flask
    seen: list[Page] = field(default_factory=list)

    def open(self, path: str = "", status: int = 200) -> Page:
        """A page of the console, as it comes to who is signed in to it."""
        return self._at(self.person.page(ISSUER + HOME + path), status)

    def press(self, page: Page, button: str, status: int = 200, **fields: str) -> Page:
        found = self.person.press(page, button, **fields)
        assert isinstance(found, Page)
        return self._at(found, status)

    def _at(self, page: Page, status: int) -> Page:
        self.seen.append(page)
        assert page.status == status, page.text
        return page

    def enter(self, path: str = "") -> Page:
        """Through the sign-in."""
        page = self.person.page(ISSUER + HOME + path)
        if page.form_with("login-submit"):
            found = self.person.press(page, "login-submit")
            assert isinstance(found, Page)
            page = found
        assert "You are signed in" in page.text, page.text
        (onward,) = page.links
        return self._at(self.person.page(onward), 200)


@pytest.fixture
def backend() -> str:
    return "sqlite"  # the console keeps nothing in SQL; the endpoints that it asks are tested on all


@pytest.fixture
def visitor_of(app: Flask) -> Callable[..., Visitor]:
    def made(username: str = "admin", password: str | None = None) -> Visitor:
        known = password or (ADMIN_PASSWORD if username == "admin" else PASSWORD)
        return Visitor(Person.on(app.test_client(), ISSUER, username, known), app)

    return made


@pytest.fixture
def admin(visitor_of: Callable[..., Visitor]) -> Visitor:
    """Signed in to the console, as the first admin."""
    visitor = visitor_of()
    visitor.enter()
    return visitor


@pytest.fixture
def people(api: Api) -> dict[str, Any]:
    """Ann and Bob, with the role "user"."""
    return {name: api.register(name) for name in ("ann", "bob")}
