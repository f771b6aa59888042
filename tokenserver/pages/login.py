"""`/login`: who are you? With a pending interaction, on behalf of the client that began it; or without one."""

from typing import Final

from flask import Blueprint, Response

from tokenserver.clients.registry import Clients
from tokenserver.errors import NotFound, Unauthenticated
from tokenserver.identity.login import Login, Proof, Refusal
from tokenserver.identity.people import People
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.interaction import Interaction, Interactions
from tokenserver.oauth.session_state import browser_state
from tokenserver.pages import signed_out
from tokenserver.pages.asking import asking
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on, render
from tokenserver.web.cookies import Cookies

MAX_HINT: Final = 254
# One sentence for an unknown user and for a wrong password; a disabled account is told after the right one.
SENTENCES: Final = {
    "missing_credentials": (400, "Enter your user name and your password."),
    Refusal.INVALID_CREDENTIALS: (401, "The user name or the password is wrong."),
    Refusal.ACCOUNT_DISABLED: (403, "This account is disabled."),
}


def blueprint(
    *,
    cookies: Cookies,
    forms: Forms,
    clients: Clients,
    people: People,
    login: Login,
    browser_sessions: BrowserSessions,
    interactions: Interactions,
) -> Blueprint:
    routes = Blueprint("login", __name__)

    def shown(browser: str, interaction: Interaction | None, username: str, refusal: str | None = None) -> Response:
        status, sentence = SENTENCES[refusal] if refusal else (200, None)
        asks = asking(clients, interaction)
        response = render(
            "login.html",
            status,
            forms=asks.forms if asks else ("'self'",),
            images=asks.images if asks else (),
            asks=asks,
            interaction=interaction,
            username=username,
            code=refusal,
            sentence=sentence,
            csrf=forms.csrf(browser),
        )
        return forms.keep_browser(response, browser)

    @routes.get("/login")
    def ask() -> Response:
        interaction_id = forms.query().get("interaction")
        browser = forms.browser()
        interaction = pending(interactions, interaction_id, browser) if interaction_id else None
        signed_in = browser_sessions.find(cookies.session())
        person = people.find(signed_in.user_id) if signed_in else None
        if person and interaction is None:
            response = render(
                "signed_in.html", forms=("'self'",), username=person.username, csrf=forms.csrf(browser)
            )
            return forms.keep_browser(response, browser)
        return shown(browser, interaction, _hint(interaction) or (person.username if person else ""))

    @routes.post("/login")
    def sign_in() -> Response:
        fields, browser = forms.read()
        interaction_id = fields.get("interaction")
        interaction = pending(interactions, interaction_id, browser) if interaction_id else None
        if interaction and interaction.client_id and "cancel" in fields:
            return go_on(interaction.resume + ("&" if "?" in interaction.resume else "?") + "cancel=1")
        username, password = fields.get("username", ""), fields.get("password", "")
        if not username or not password:
            return shown(browser, interaction, username, "missing_credentials")
        proof = login.authenticate(username, password)
        if not isinstance(proof, Proof):
            return shown(browser, interaction, username, proof)
        try:
            cookie, signed_in = browser_sessions.sign_in(proof, ("pwd",), cookies.session())
        except Unauthenticated:  # changed between the look and the write
            return shown(browser, interaction, username, Refusal.INVALID_CREDENTIALS)
        response = go_on(interaction.resume if interaction else "/login")
        cookies.keep_session(response, cookie)
        cookies.keep_browser_state(response, browser_state(signed_in.session_id))
        return response

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
    return interaction


def _hint(interaction: Interaction | None) -> str:
    """OIDC Core section 3.1.2.1, `login_hint`."""
    hint = interaction.data.get("login_hint") if interaction else None
    return hint if isinstance(hint, str) and hint.isprintable() and len(hint) <= MAX_HINT else ""
