"""What is shown when nobody is signed in any more."""

from flask import Response

from tokenserver.pages.rendering import render as render_page


def render() -> Response:
    return render_page("signed_out.html", uris=(), return_to=None)
