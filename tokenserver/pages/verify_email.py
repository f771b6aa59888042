"""`/verify-email`: by a mailed link, and a button: programs that look into mail follow links, too."""

from flask import Blueprint, Response

from tokenserver.errors import NotFound
from tokenserver.identity.links import Purpose
from tokenserver.identity.recovery import Recovery
from tokenserver.pages.forms import Forms
from tokenserver.pages.mailed_link import MailedLink, dead
from tokenserver.pages.rendering import render
from tokenserver.web.cookies import Cookies


def blueprint(*, cookies: Cookies, forms: Forms, recovery: Recovery) -> Blueprint:
    routes = Blueprint("verify_email", __name__)
    link = MailedLink(cookies, forms, recovery, Purpose.EMAIL, "/verify-email")

    @routes.get("/verify-email")
    def enter() -> Response:
        moved = link.taken_from_address()
        if moved is not None:
            return moved
        user, browser = link.user(), forms.browser()
        if user is None:
            return dead(None)
        page = render(
            "verify_email.html",
            forms=("'self'",),
            username=user.username,
            email=user.email,
            csrf=forms.csrf(browser),
        )
        return forms.keep_browser(page, browser)

    @routes.post("/verify-email")
    def confirm() -> Response:
        forms.read()
        try:
            recovery.verify_email(link.token())
        except NotFound:
            return dead(None)
        return link.forgotten(render("verify_email_done.html"))

    return routes
