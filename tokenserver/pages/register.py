"""`/register`: a new account, by the same rules as `POST /auth/register`; its user is signed in at once."""

from typing import Final

from flask import Blueprint, Response

from tokenserver.auth.registration import Registration
from tokenserver.clients.registry import Clients
from tokenserver.errors import Refused, TooManyRequests
from tokenserver.identity.schemas import RegistrationSchema
from tokenserver.oauth.interaction import Interaction, Interactions
from tokenserver.pages.asking import asking
from tokenserver.pages.forms import Forms
from tokenserver.pages.login import pending
from tokenserver.pages.refused import Shown, shown
from tokenserver.pages.rendering import render
from tokenserver.pages.sign_in import SignInForms
from tokenserver.web.wire import loaded

FIELDS: Final[tuple[str, ...]] = ("name", "username", "email", "password")


def blueprint(
    *,
    forms: Forms,
    clients: Clients,
    interactions: Interactions,
    registration: Registration,
    sign_in_forms: SignInForms,
) -> Blueprint:
    routes = Blueprint("register", __name__)

    def begun(interaction_id: str | None, browser: str) -> Interaction | None:
        return pending(interactions, interaction_id, browser) if interaction_id else None

    def ask(
        browser: str, interaction: Interaction | None, typed: dict[str, str], refusal: Shown | None = None
    ) -> Response:
        asks = asking(clients, interaction)
        page = render(
            "register.html",
            refusal.status if refusal else 200 if registration.is_open else 403,
            forms=asks.forms if asks else ("'self'",),
            images=asks.images if asks else (),
            asks=asks,
            interaction=interaction,
            is_open=registration.is_open,
            typed=typed,
            refusal=refusal,
            csrf=forms.csrf(browser),
        )
        if refusal and refusal.retry_after:
            page.headers["Retry-After"] = refusal.retry_after
        return forms.keep_browser(page, browser)

    @routes.get("/register")
    def enter() -> Response:
        browser = forms.browser()
        return ask(browser, begun(forms.query().get("interaction"), browser), {})

    @routes.post("/register")
    def send() -> Response:
        fields, browser = forms.read()
        interaction = begun(fields.get("interaction"), browser)
        given = {name: fields[name] for name in FIELDS if name in fields}
        try:
            registration.register(loaded(RegistrationSchema, given))
        except (Refused, TooManyRequests) as error:
            typed = {name: value for name, value in given.items() if name != "password"}
            return ask(browser, interaction, typed, shown(error))
        return sign_in_forms.by_password(given, browser, interaction)

    return routes
