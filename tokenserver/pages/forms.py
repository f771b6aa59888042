"""What a page is asked and told: a query, a form, and the proof that the form is this browser's own (OWASP ASVS
3.5.1).
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from flask import Response, request
from werkzeug.exceptions import BadRequest

from tokenserver.errors import Forbidden
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.parameters import MAX_PARAMETERS, parse_form, unique
from tokenserver.web.cookies import Cookies, new_cookie
from tokenserver.web.wire import body_bytes

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Form(NamedTuple):
    """`fields`: each once, none empty. `browser`: the cookie of the browser that sent it."""

    fields: dict[str, str]
    browser: str


class Forms:
    """`secrets`: the ring's MAC secrets for forms, newest first."""

    def __init__(self, cookies: Cookies, secrets: Callable[[], tuple[bytes, ...]], issuer: str) -> None:
        self._cookies = cookies
        self._secrets = secrets
        self._origin = _origin(issuer)

    def csrf(self, browser: str) -> str:
        """For the hidden field `csrf`."""
        return _mac(self._secrets()[0], browser)

    def browser(self) -> str:
        """Of this request, or of one that has none yet: then `Cookies.keep_browser`."""
        return self._cookies.browser() or new_cookie()

    def keep_browser(self, response: Response, browser: str) -> Response:
        self._cookies.keep_browser(response, browser)
        return response

    @staticmethod
    def query() -> dict[str, str]:
        """Each parameter once, none empty. Raises BadRequest."""
        try:
            return unique(
                parse_qsl(
                    request.query_string.decode("ascii"),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=MAX_PARAMETERS,
                )
            )
        except (ValueError, InvalidRequest):
            raise BadRequest from None

    def read(self, most: int = MAX_PARAMETERS) -> Form:
        """`most`: so many fields. Raises BadRequest, RequestEntityTooLarge, and Forbidden `csrf_failed`: nothing
        was done."""
        try:
            query = request.query_string.decode("latin-1")
            fields = parse_form(body_bytes(), request.headers.get("Content-Type", ""), query, most)
        except InvalidRequest:
            raise BadRequest from None
        browser = self._cookies.browser()
        if browser is None or self._is_from_elsewhere() or not self._is_ours(fields.get("csrf", ""), browser):
            raise Forbidden(
                "This form is no longer valid, or this browser keeps no cookies. Load the page again and retry.",
                code="csrf_failed",
            )
        return Form(fields, browser)

    def _is_ours(self, given: str, browser: str) -> bool:
        return any(
            hmac.compare_digest(_mac(secret, browser).encode(), given.encode()) for secret in self._secrets()
        )

    def _is_from_elsewhere(self) -> bool:
        # A browser tells where a form was sent from; "none": by its user, who loads the page again.
        if request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
            return True
        # Under Referrer-Policy: no-referrer a browser says "null" of our own forms too (Fetch section 3.2).
        origin = request.headers.get("Origin", "null")
        return origin != "null" and _origin(origin) != self._origin


def _mac(secret: bytes, browser: str) -> str:
    return urlsafe_b64encode(hmac.digest(secret, browser.encode(), hashlib.sha256)).rstrip(b"=").decode()


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """RFC 6454 section 4: scheme, host and port."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
