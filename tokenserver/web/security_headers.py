"""Headers that every answer carries (OWASP ASVS 5.0 section 3.4)."""

from typing import Final

from flask import Flask, Response

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
# For browsers that don't know frame-ancestors; it has no word for the page that anybody may embed.
UNFRAMED: Final = "frame-ancestors 'none'"


def register(app: Flask, *, https: bool) -> None:
    headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    @app.after_request
    def add(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        if UNFRAMED in response.headers["Content-Security-Policy"]:
            response.headers.setdefault("X-Frame-Options", "DENY")
        if response.status_code == 204:
            del response.headers["Content-Type"]  # there is no content that it could speak of
        return response
