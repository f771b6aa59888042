"""What every page of the console is: behind a sign-in, in one frame, with what was refused told and why."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, Response
from werkzeug.datastructures import WWWAuthenticate

from tokenserver.pages import error
from tokenserver.pages.admin.api import Refused
from tokenserver.pages.admin.sign_in import HOME, Admin, SignIn
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on, render
from tokenserver.verify.errors import InsufficientUserAuthentication
from tokenserver.web.language import marked

Fields = Mapping[str, str]
View = Callable[..., Response]
# States and outcomes, as REST has them.
WORDS: Final = (
    marked("active"),
    marked("disabled"),
    marked("next"),
    marked("retired"),
    marked("success"),
    marked("denied"),
    marked("failed"),
)
LACKING: Final = ("permission_denied", "insufficient_scope")


class Section(NamedTuple):
    """`title`, `about`: in English, as the catalogue has them. `needs`: the permission without which it is not
    offered."""

    name: str
    title: str
    needs: str
    about: str


SECTIONS: Final = (
    Section("users", marked("Users"), "users:list", marked("Look somebody up, give roles, disable, end sessions.")),
    Section(
        "roles",
        marked("Roles"),
        "roles:read",
        marked("Which role permits what, and what a change would do to whom."),
    ),
    Section(
        "clients", marked("Clients"), "clients:read", marked("Applications and services that get tokens here.")
    ),
    Section("keys", marked("Keys"), "keys:read", marked("The keys that sign: next, active, retired.")),
    Section("log", marked("Log"), "logs:read", marked("Who did what, live, and how far that is vouched for.")),
    Section(
        "stats", marked("Statistics"), "stats:read", marked("How rights are spread, and how often they are used.")
    ),
    Section("explain", marked("Explain"), "roles:read", marked("Why somebody may do something, or may not.")),
)
# What was done, told on the page that comes after it; by a word in its address.
DONE: Final = {
    "saved": marked("Saved. It holds from the next request on."),
    "created": marked("Created."),
    "deleted": marked("Deleted."),
    "disabled": marked("Disabled. Every session has ended."),
    "enabled": marked("Enabled."),
    "ended": marked("Ended, with all tokens that were issued in it."),
    "factors-removed": marked("The second factors are removed. The password is enough now."),
    "mailed": marked("If this server can reach the address, a link to set a new password is on its way."),
    "rotated": marked("Rotated. Every process signs with the new key within a minute."),
}


class Page(NamedTuple):
    """`needs`: what is asked for, to tell who lacks it. `most`: so many fields of a form; 0: it is none. `is_part`:
    of a page that is there, for its script."""

    rule: str
    needs: str | None
    most: int
    view: Callable[..., Response]
    is_part: bool = False


class Pages:
    """Those of a section. Each view gets the `Admin`, the fields of a form, and the parts of the path."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    def page(self, rule: str, *, needs: str | None = None) -> Callable[[View], View]:
        return self._adding(rule, needs, 0)

    def part(self, rule: str, *, needs: str) -> Callable[[View], View]:
        return self._adding(rule, needs, 0, is_part=True)

    def action(self, rule: str, *, needs: str, most: int = 50) -> Callable[[View], View]:
        """What a form leads to."""
        return self._adding(rule, needs, most)

    def _adding(self, rule: str, needs: str | None, most: int, *, is_part: bool = False) -> Callable[[View], View]:
        def add(view: View) -> View:
            self.pages.append(Page(rule, needs, most, view, is_part))
            return view

        return add


@dataclass(frozen=True)
class Console:
    sign_in: SignIn
    forms: Forms

    def add(self, routes: Blueprint, pages: Pages) -> None:
        for page in pages.pages:
            method = "POST" if page.most else "GET"
            routes.add_url_rule(page.rule, page.view.__name__, self._shown(page), methods=[method])

    def _shown(self, page: Page) -> Callable[..., Response]:
        def shown(**parts: Any) -> Response:
            fields = self.forms.read(page.most).fields if page.most else None
            return self._guarded(page, fields, functools.partial(page.view, **parts))

        return shown

    def _guarded(self, page: Page, fields: Fields | None, view: Callable[..., Response]) -> Response:
        try:
            admin = self.sign_in.admin()
        except Refused as refused:
            return failed(refused)
        if admin is None:
            return self.sign_in.begin() if fields is None else failed_sign_in()
        if admin.gained and fields is None and not page.is_part:
            return self.sign_in.begin(wanted=admin.gained)
        try:
            response = view(admin) if fields is None else view(admin, fields)
        except Refused as refused:
            response = self._refused(admin, refused, page.needs, is_form=fields is not None)
        return self.forms.keep_browser(response, self.forms.browser())

    def _refused(self, admin: Admin, refused: Refused, needs: str | None, *, is_form: bool) -> Response:
        if refused.code == InsufficientUserAuthentication.error:
            # Not by itself: whoever has no second factor would come back as they went, again and again.
            wanted = _step_up(refused)
            return show(admin, "sign_in_again.html", 401, wanted=wanted, query=urlencode(wanted))
        if refused.status == 401:
            return failed_sign_in() if is_form else self.sign_in.begin()
        return show(
            admin,
            "refused.html",
            refused.status,
            title=error.title_of(refused.status),
            refused=refused,
            lacks=needs if refused.code in LACKING else None,
            retry_after=refused.answer.headers.get("Retry-After"),
        )


def show(
    admin: Admin, template: str, status: int = 200, *, section: str = "", is_live: bool = False, **values: Any
) -> Response:
    """`section`: the name of the one that the page belongs to. `is_live`: it has a script that asks for more."""
    return render(
        f"admin/{template}",
        status,
        forms=("'self'",),
        connects=("'self'",) if is_live else (),
        has_assets=is_live,
        admin=admin,
        sections=[each for each in SECTIONS if admin.may(each.needs)],
        section=section,
        home=HOME,
        done=DONE.get(Forms.query().get("done", "")),
        csrf=admin.csrf,
        **values,
    )


def go(path: str, done: str) -> Response:
    """To a page of the console, where a word of `DONE` is told."""
    return go_on(f"{HOME}{path}{'&' if '?' in path else '?'}done={done}")


def failed(refused: Refused) -> Response:
    """An error that comes before anybody is known."""
    retry_after = refused.answer.headers.get("Retry-After")
    return error.page(refused.status, refused.code, refused.detail, retry_after=retry_after)


def failed_sign_in() -> Response:
    """For a form of who is no longer signed in: nothing was done."""
    return render("admin/signed_out.html", 401, home=HOME)


def _step_up(refused: Refused) -> dict[str, str]:
    """RFC 9470 section 4: what the challenge asks for, as parameters of an authorization request."""
    challenge = WWWAuthenticate.from_header(refused.answer.headers.get("WWW-Authenticate"))
    found = challenge.parameters if challenge else {}
    return {name: value for name in ("acr_values", "max_age") if (value := found.get(name))}
