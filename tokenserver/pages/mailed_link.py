"""The token of a mailed link on its way from the address into a cookie: addresses are kept in histories, and looked
at over shoulders.
"""

from typing import Final

from flask import Response

from tokenserver.identity.links import LIFETIME, Purpose
from tokenserver.identity.models import User
from tokenserver.identity.recovery import Recovery
from tokenserver.pages.forms import Forms
from tokenserver.pages.refused import Shown
from tokenserver.pages.rendering import go_on, render
from tokenserver.web.cookies import Cookies
from tokenserver.web.language import marked, translated

DEAD: Final = marked("It is wrong, was used, or has expired. A newer one takes the place of those before it.")


class MailedLink:
    def __init__(self, cookies: Cookies, forms: Forms, recovery: Recovery, purpose: Purpose, path: str) -> None:
        self._cookies = cookies
        self._forms = forms
        self._recovery = recovery
        self._purpose = purpose
        self._path = path

    def taken_from_address(self) -> Response | None:
        """The same page without the token; None when the address has none. Raises BadRequest."""
        token = self._forms.query().get("token")
        if token is None:
            return None
        response = go_on(self._path)
        lifetime = int(LIFETIME[self._purpose].total_seconds())
        self._cookies.keep_link(response, self._purpose, token, lifetime)
        return response

    def token(self) -> str:
        """Of this browser; empty, and so worth nothing, where it has none."""
        return self._cookies.link(self._purpose) or ""

    def user(self) -> User | None:
        return self._recovery.find(self._purpose, self.token())

    def forgotten(self, response: Response) -> Response:
        self._cookies.keep_link(response, self._purpose, "", 0)
        return response


def dead(again: str | None) -> Response:
    """`again`: the path of the page that mails a new one."""
    return render(
        "mailed_link_dead.html", 404, refusal=Shown(404, "link_not_found", translated(DEAD), {}), again=again
    )
