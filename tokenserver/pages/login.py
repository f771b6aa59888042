"""`/login`: who are you? With a pending interaction, on behalf of the client that began it; or without one."""

from typing import Final

from flask import Blueprint, Response

from tokenserver.errors import NotFound
from tokenserver.identity.people import People
from tokenserver.oauth.browser_session import BrowserSessions, SignedIn
from tokenserver.oauth.interaction import Interaction, Interactions
from tokenserver.pages import signed_out
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on
from tokenserver.pages.sign_in import SignInForms
from tokenserver.web.cookies import Cookies
from tokenserver.web.language import prefer

MAX_HINT: Final = 254


def blueprint(
    *,
    cookies: Cookies,
    forms: Forms,
    people: People,
    sign_in_forms: SignInForms,
    browser_sessions: BrowserSessions,
    interactions: Interactions,
) -> Blueprint:
    routes = Blueprint("login", __name__)

    @routes.get("/login")
    def ask() -> Response:
        query, browser = forms.query(), forms.browser()
        interaction_id = query.get("interaction")
        interaction = pending(interactions, interaction_id, browser) if interaction_id else None
        signed_in = browser_sessions.find(cookies.session())
        person = people.find(signed_in.user_id) if signed_in else None
        if signed_in and person and "as" not in query:
            if interaction is None:
                return forms.keep_browser(go_on("/account"), browser)
            if _lacks_second_factor(interaction, signed_in) and (user := people.find_by_login(person.username)):
                return sign_in_forms.second_step(browser, interaction, user, within=signed_in)
        return sign_in_forms.first_step(
            browser, interaction, _hint(interaction) or (person.username if person else "")
        )

    @routes.post("/login")
    def sign_in() -> Response:
        fields, browser = forms.read()
        interaction_id = fields.get("interaction")
        interaction = pending(interactions, interaction_id, browser) if interaction_id else None
        if interaction and interaction.client_id and "cancel" in fields:
            return go_on(interaction.resume + ("&" if "?" in interaction.resume else "?") + "cancel=1")
        if "step" in fields:
            return sign_in_forms.by_second_factor(fields, browser, interaction)
        if "credential" in fields:
            return sign_in_forms.by_passkey(fields, browser, interaction)
        return sign_in_forms.by_password(fields, browser, interaction)

    @routes.post("/login/sign-out")
    def sign_out() -> Response:
        forms.read()
        browser_sessions.sign_out(cookies.session())
        response = signed_out.render()
        cookies.forget_session(response)
        return response

    return routes


def pending(interactions: Interactions, interaction_id: str, browser: str) -> Interaction:
    """Raises NotFound `interaction_not_found`: unknown, over, or of another browser."""
    interaction = interactions.find(interaction_id, browser)
    if interaction is None:
        raise NotFound(
            "This sign-in is over, or it began in another browser. Go back to the application and start again.",
            code="interaction_not_found",
        )
    prefer(interaction.data.get("ui_locales"))
    return interaction


def _lacks_second_factor(interaction: Interaction, signed_in: SignedIn) -> bool:
    """And nothing else (RFC 9470 section 5)."""
    return interaction.data.get("step_up") == str(signed_in.session_id)


def _hint(interaction: Interaction | None) -> str:
    """OIDC Core section 3.1.2.1, `login_hint`."""
    hint = interaction.data.get("login_hint") if interaction else None
    return hint if isinstance(hint, str) and hint.isprintable() and len(hint) <= MAX_HINT else ""
