"""The cookies of a browser (RFC 6265): who is signed in, which browser this is, what clients' pages may learn."""

import re
import secrets
from typing import Final

from flask import Response, request

# 256 bits, as `new_cookie` writes them.
VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
# s; browsers keep none for longer than 400 days (RFC 6265bis section 5.5).
DEVICE_LIFETIME: Final = 180 * 86400


def new_cookie() -> str:
    return secrets.token_urlsafe(32)


class Cookies:
    """`session`: replaced at every sign-in. `browser`: set at first need and kept across sign-ins; pending
    interactions and forms are bound to it. `op_browser_state`: another word when somebody else is signed in, for
    the script of the check_session iframe (OIDC Session Management section 3.3); nothing here depends on it.

    `console`: of who is at the admin console; no other site leads there in its name (SameSite=Strict).

    `device`: kept when the browser is closed; known to belong to whoever signed in last (`identity.known_devices`).

    On https no other host and no path can set them (OWASP ASVS 3.3.1: __Host-). Elsewhere their names are our own:
    cookies are shared by all ports of a host (RFC 6265 section 8.5), and on a developer's machine the client that
    signs people in here often stands beside this server with a cookie called "session".
    """

    def __init__(self, issuer: str) -> None:
        self._secure = issuer.startswith("https:")
        self._prefix = prefix = "__Host-" if self._secure else "tokenserver_"
        self.session_name: Final = f"{prefix}session"
        self.device_name: Final = f"{prefix}device"
        self.browser_name: Final = f"{prefix}browser"
        self.console_name: Final = f"{prefix}console"
        self.browser_state_name: Final = f"{prefix}op_browser_state"

    def session(self) -> str | None:
        """Of this request; what this server can't have made counts as none."""
        return self._given(self.session_name)

    def browser(self) -> str | None:
        return self._given(self.browser_name)

    def device(self) -> str | None:
        return self._given(self.device_name)

    def console(self) -> str | None:
        return self._given(self.console_name)

    def keep_console(self, response: Response, value: str) -> None:
        """Until the browser is closed."""
        self._set(response, self.console_name, value, same_site="Strict")

    def forget_console(self, response: Response) -> None:
        self._set(response, self.console_name, "", max_age=0, same_site="Strict")

    def link(self, purpose: str) -> str | None:
        """The token of a mailed link that this browser followed."""
        return self._given(self._link_name(purpose))

    def keep_link(self, response: Response, purpose: str, token: str, lifetime: int) -> None:
        """`lifetime` in s; 0: no longer."""
        self._set(response, self._link_name(purpose), token if VALUE.fullmatch(token) else "", max_age=lifetime)

    def _link_name(self, purpose: str) -> str:
        return f"{self._prefix}link_{purpose}"

    @staticmethod
    def _given(name: str) -> str | None:
        value = request.cookies.get(name, "")
        return value if VALUE.fullmatch(value) else None

    def keep_session(self, response: Response, value: str) -> None:
        """Until the browser is closed; the server may end it before."""
        self._set(response, self.session_name, value)

    def forget_session(self, response: Response) -> None:
        self._set(response, self.session_name, "", max_age=0)
        self._set_browser_state(response, "", max_age=0)

    def keep_browser(self, response: Response, value: str) -> None:
        """`value`: of the request, or a new one, which alone is sent."""
        if value != self.browser():
            self._set(response, self.browser_name, value)

    def keep_device(self, response: Response, value: str) -> None:
        """Sent again at every sign-in, so that it lasts while it is used."""
        self._set(response, self.device_name, value, max_age=DEVICE_LIFETIME)

    def keep_browser_state(self, response: Response, value: str) -> None:
        """At each sign-in, and wherever a client is told a `session_state`."""
        if value != request.cookies.get(self.browser_state_name):
            self._set_browser_state(response, value)

    def _set_browser_state(self, response: Response, value: str, max_age: int | None = None) -> None:
        # Read by a script, in a frame within another site's page; without https browsers don't allow that much.
        same_site = "None" if self._secure else "Lax"
        name = self.browser_state_name
        response.set_cookie(name, value, max_age, path="/", secure=self._secure, samesite=same_site)

    def _set(
        self, response: Response, name: str, value: str, max_age: int | None = None, same_site: str = "Lax"
    ) -> None:
        # OWASP ASVS 3.3.1 to 3.3.4. Lax: the way here from a client's page is a navigation from another site.
        response.set_cookie(name, value, max_age, path="/", secure=self._secure, httponly=True, samesite=same_site)
