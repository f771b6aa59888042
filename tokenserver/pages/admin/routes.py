"""`/admin` and below `/admin/console`: the pages of the console, and the way in and out."""

from collections.abc import Mapping
from typing import Final

from flask import Blueprint, Flask, Response, request

from tokenserver.config import Settings
from tokenserver.oauth.interaction import Interactions
from tokenserver.pages import error as error_page
from tokenserver.pages import signed_out
from tokenserver.pages.admin import clients, explain, home, keys, log, roles, stats, users
from tokenserver.pages.admin.api import Api, Refused
from tokenserver.pages.admin.console import Console, failed
from tokenserver.pages.admin.sign_in import HOME, SignIn
from tokenserver.pages.admin.tokens import HeldTokens
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on, render
from tokenserver.storage.feed import Feed
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.web import problems
from tokenserver.web.cookies import Cookies
from tokenserver.web.problems import Failure

ENTRY: Final = "/admin"


def render_error(failure: Failure, error: Exception) -> Response:
    """Below /admin lie REST endpoints too, which speak their own tongue."""
    is_page = request.path == ENTRY or request.path.startswith(HOME)
    return (error_page.render if is_page else problems.render)(failure, error)


def blueprint(
    app: Flask,
    *,
    settings: Settings,
    cookies: Cookies,
    forms: Forms,
    interactions: Interactions,
    key_ring: KeyRing,
    feed: Feed,
) -> Blueprint:
    routes = Blueprint("console", __name__, url_prefix=HOME)
    held = HeldTokens(feed, lambda: key_ring.secrets("console"), settings.browser_session_idle_ttl)
    sign_in = SignIn(
        cookies=cookies,
        forms=forms,
        interactions=interactions,
        keys=key_ring,
        held=held,
        api=Api(app, settings.issuer),
        issuer=settings.issuer,
    )
    console = Console(sign_in, forms)
    for section in (home, users, roles, clients, keys, log, stats, explain):
        console.add(routes, section.PAGES)

    @routes.get("/callback")
    def come_back() -> Response:
        try:
            cookie, path = sign_in.come_back()
        except Refused as refused:
            return failed(refused)
        # A redirect would be part of the way from wherever the user came, and carry no strict cookie.
        response = render("admin/signed_in.html", path=path)
        cookies.keep_console(response, cookie)
        return response

    @routes.get("/sign-in")
    def sign_in_again() -> Response:
        asked = forms.query()
        return sign_in.begin(HOME, **_step_up(asked))

    @routes.post("/sign-out")
    def sign_out() -> Response:
        forms.read()
        try:
            sign_in.sign_out()
        except Refused as refused:
            return failed(refused)
        response = signed_out.render()
        cookies.forget_console(response)
        cookies.forget_session(response)
        return response

    return routes


def entry() -> Blueprint:
    routes = Blueprint("console_entry", __name__)

    @routes.get(ENTRY)
    def enter() -> Response:
        return go_on(HOME)

    return routes


def _step_up(asked: Mapping[str, str]) -> dict[str, str]:
    """What the authorization endpoint checks, like everybody's."""
    return {name: asked[name] for name in ("acr_values", "max_age") if name in asked}
