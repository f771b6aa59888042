"""`/forgot-password`: a link to set a new password is mailed, if there is an account with this address."""

from flask import Blueprint, Response

from tokenserver.errors import Invalid
from tokenserver.identity.recovery import Recovery
from tokenserver.mail.models import Kind
from tokenserver.pages.forms import Forms
from tokenserver.pages.refused import Shown, shown
from tokenserver.pages.rendering import render

MAX_EMAIL = 254


def blueprint(*, forms: Forms, recovery: Recovery) -> Blueprint:
    routes = Blueprint("forgot_password", __name__)

    def ask(browser: str, email: str = "", refusal: Shown | None = None) -> Response:
        page = render(
            "forgot_password.html",
            refusal.status if refusal else 200,
            forms=("'self'",),
            is_open=recovery.is_open,
            email=email,
            refusal=refusal,
            csrf=forms.csrf(browser),
        )
        return forms.keep_browser(page, browser)

    @routes.get("/forgot-password")
    def enter() -> Response:
        return ask(forms.browser())

    @routes.post("/forgot-password")
    def send() -> Response:
        fields, browser = forms.read()
        email = fields.get("email", "")[:MAX_EMAIL]
        try:
            recovery.ask(Kind.PASSWORD_RESET, email)
        except Invalid as error:
            return ask(browser, email, shown(error))
        # The same for every address.
        return render("forgot_password_done.html")

    return routes
