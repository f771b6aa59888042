"""Headers that every answer carries (OWASP ASVS 5.0 section 3.4)."""

from typing import Final

from flask import Flask, Response
from werkzeug.datastructures import Headers

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    # No page of another site embeds it as a picture, script or frame; what is for everybody says otherwise.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Whatever doesn't say otherwise may hold something personal.
    "Cache-Control": "no-store",
}
HTTPS: Final = {"Strict-Transport-Security": "max-age=31536000"}
# For browsers that don't know frame-ancestors; it has no word for the page that anybody may embed.
UNFRAMED: Final = "frame-ancestors 'none'"


def complete(headers: Headers, status: int, *, https: bool) -> None:
    """Adds those that an answer doesn't say otherwise, and takes away what is for others to say."""
    names = {name.lower() for name, _ in headers}
    for name, value in (HEADERS | HTTPS if https else HEADERS).items():
        if name.lower() not in names:
            headers.add(name, value)
    if "x-frame-options" not in names and UNFRAMED in headers["Content-Security-Policy"]:
        headers.add("X-Frame-Options", "DENY")
    # The HTTP server writes it, once, and anew for an answer that is kept (RFC 9110 section 6.6.1). Werkzeug adds
    # one where it looks at conditions.
    del headers["Date"]
    if status == 204:
        del headers["Content-Type"]  # there is no content that it could speak of


def register(app: Flask, *, https: bool) -> None:
    @app.after_request
    def add(response: Response) -> Response:
        complete(response.headers, response.status_code, https=https)
        return response
