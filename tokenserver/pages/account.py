"""`/account/security`: one's own second factors."""

from typing import Final

from flask import Blueprint, Response
from werkzeug.exceptions import BadRequest

from tokenserver.identity.people import People
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.interaction import Interactions
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on
from tokenserver.pages.security import Asked, SecurityForms
from tokenserver.web.cookies import Cookies
from tokenserver.web.request_context import current

HERE: Final = "/account/security"


def blueprint(
    *,
    cookies: Cookies,
    forms: Forms,
    people: People,
    browser_sessions: BrowserSessions,
    interactions: Interactions,
    security_forms: SecurityForms,
) -> Blueprint:
    routes = Blueprint("account", __name__)

    def asked(browser: str) -> Asked | None:
        signed_in = browser_sessions.find(cookies.session())
        person = people.find(signed_in.user_id) if signed_in else None
        if signed_in is None or person is None:
            return None
        current().actor = str(person.id)
        return Asked(person, signed_in, browser, forms.csrf(browser))

    def sign_in(browser: str, within: str | None = None) -> Response:
        """And come back. `within`: the session that lacks nothing but a second factor."""
        data = {"step_up": within}
        interaction = interactions.begin(browser, resume=HERE, client_id=None, data=data)
        return forms.keep_browser(go_on(f"/login?interaction={interaction.id}"), browser)

    @routes.get("/account")
    def account() -> Response:
        return go_on(HERE)

    @routes.get(HERE)
    def security() -> Response:
        browser = forms.browser()
        who = asked(browser)
        return sign_in(browser) if who is None else forms.keep_browser(security_forms.overview(who), browser)

    @routes.post(HERE)
    def change() -> Response:
        fields, browser = forms.read()
        who = asked(browser)
        if who is None:
            return sign_in(browser)
        action = security_forms.actions.get(fields.get("action", ""))
        if action is None:
            raise BadRequest
        if not security_forms.is_recent(who):
            return sign_in(browser, security_forms.lacks_second_factor(who))
        return action(who, fields) or go_on(HERE)

    return routes
