"""`/account` and what is below it: who is signed in sees and changes their own account."""

from collections.abc import Iterable
from functools import partial

from flask import Blueprint, Response
from werkzeug.exceptions import BadRequest

from tokenserver.identity.people import People
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.interaction import Interactions
from tokenserver.pages.asked import AccountPage, Asked, Recency
from tokenserver.pages.forms import Forms
from tokenserver.pages.rendering import go_on
from tokenserver.web.cookies import Cookies
from tokenserver.web.request_context import current


class Account:
    """The rooms' joint behind the account's pages: who asks, and whether they have to sign in first."""

    def __init__(
        self,
        *,
        cookies: Cookies,
        forms: Forms,
        people: People,
        browser_sessions: BrowserSessions,
        interactions: Interactions,
        recency: Recency,
    ) -> None:
        self._cookies = cookies
        self._forms = forms
        self._people = people
        self._browser_sessions = browser_sessions
        self._interactions = interactions
        self._recency = recency

    def show(self, page: AccountPage) -> Response:
        browser = self._forms.browser()
        who = self._asked(browser, self._forms.query().get("done", ""))
        if who is None:
            return self._sign_in(browser, page.path)
        return self._forms.keep_browser(page.show(who), browser)

    def change(self, page: AccountPage) -> Response:
        fields, browser = self._forms.read()
        who = self._asked(browser)
        if who is None:
            return self._sign_in(browser, page.path)
        name = fields.get("action", "")
        if name not in page.actions:
            raise BadRequest
        if page.needs_recent_sign_in and not self._recency.is_recent(who):
            return self._sign_in(browser, page.path, self._recency.lacks_second_factor(who))
        return page.actions[name](who, fields) or go_on(f"{page.path}?done={name}")

    def _asked(self, browser: str, done: str = "") -> Asked | None:
        signed_in = self._browser_sessions.find(self._cookies.session())
        person = self._people.find(signed_in.user_id) if signed_in else None
        if signed_in is None or person is None:
            return None
        current().actor = str(person.id)
        return Asked(person, signed_in, browser, self._forms.csrf(browser), done)

    def _sign_in(self, browser: str, path: str, within: str | None = None) -> Response:
        """And come back. `within`: the session that lacks nothing but a second factor."""
        interaction = self._interactions.begin(browser, resume=path, client_id=None, data={"step_up": within})
        return self._forms.keep_browser(go_on(f"/login?interaction={interaction.id}"), browser)


def blueprint(account: Account, pages: Iterable[AccountPage]) -> Blueprint:
    routes = Blueprint("account", __name__)
    for page in pages:
        name = page.path.strip("/").replace("/", "_")
        routes.get(page.path, endpoint=f"show_{name}")(partial(account.show, page))
        routes.post(page.path, endpoint=f"change_{name}")(partial(account.change, page))
    return routes
