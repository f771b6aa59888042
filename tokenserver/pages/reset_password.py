"""`/reset-password`: a new password, by a mailed link."""

from flask import Blueprint, Response

from tokenserver.errors import Invalid, NotFound
from tokenserver.identity.links import Purpose
from tokenserver.identity.recovery import Recovery
from tokenserver.pages.forms import Forms
from tokenserver.pages.mailed_link import MailedLink, dead
from tokenserver.pages.refused import Shown, shown
from tokenserver.pages.rendering import render
from tokenserver.web.cookies import Cookies


def blueprint(*, cookies: Cookies, forms: Forms, recovery: Recovery) -> Blueprint:
    routes = Blueprint("reset_password", __name__)
    link = MailedLink(cookies, forms, recovery, Purpose.PASSWORD, "/reset-password")

    def ask(browser: str, username: str, refusal: Shown | None = None) -> Response:
        page = render(
            "reset_password.html",
            refusal.status if refusal else 200,
            forms=("'self'",),
            username=username,
            refusal=refusal,
            csrf=forms.csrf(browser),
        )
        return forms.keep_browser(page, browser)

    @routes.get("/reset-password")
    def enter() -> Response:
        return link.taken_from_address() or (
            ask(forms.browser(), user.username) if (user := link.user()) else dead("/forgot-password")
        )

    @routes.post("/reset-password")
    def send() -> Response:
        fields, browser = forms.read()
        try:
            recovery.set_password(link.token(), fields.get("password", ""))
        except NotFound:
            return dead("/forgot-password")
        except Invalid as error:
            user = link.user()
            return ask(browser, user.username, shown(error)) if user else dead("/forgot-password")
        return link.forgotten(render("reset_password_done.html"))

    return routes
