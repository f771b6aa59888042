"""How an authorization response travels: in the query, in the fragment, or as a form that posts itself (OAuth 2.0
Multiple Response Types, OAuth 2.0 Form Post Response Mode).
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from flask import Response

RESPONSE_MODES: Final = ("query", "fragment", "form_post")
SCRIPT: Final = "document.forms[0].submit()"
SCRIPT_HASH: Final = b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Going back to the application</title></head>
<body>
<form method="post" action="{action}">
{fields}
<noscript><button type="submit">Go on to the application</button></noscript>
</form>
<script>{script}</script>
</body>
</html>
"""


def default_mode(response_type: str) -> str:
    """Multiple Response Types section 5: whatever brings a token is never put into a query."""
    return "query" if response_type in {"code", ""} else "fragment"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the answer to a request goes. `state`: as it came, byte for byte."""

    redirect_uri: str
    response_mode: str
    state: str | None


def respond(target: Target, parameters: Mapping[str, str]) -> Response:
    """`state` goes with every answer that was asked with one (RFC 6749 section 4.1.2)."""
    sent = dict(parameters) | ({} if target.state is None else {"state": target.state})
    if target.response_mode == "form_post":
        return _form_post(target.redirect_uri, sent)
    encoded = urlencode(sent, quote_via=quote)
    if target.response_mode == "fragment":
        location = f"{target.redirect_uri}#{encoded}"
    else:
        # RFC 6749 section 3.1.2: a query of the registered URI is retained.
        location = f"{target.redirect_uri}{'&' if '?' in target.redirect_uri else '?'}{encoded}"
    # RFC 9700 section 4.12: 303 never sends the user's password on; RFC 6750 section 5.3: no cache keeps it.
    return Response(status=303, headers={"Location": location, "Cache-Control": "no-store", "Pragma": "no-cache"})


def _form_post(redirect_uri: str, sent: Mapping[str, str]) -> Response:
    fields = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in sent.items()
    )
    page = PAGE.format(action=escape(redirect_uri), fields=fields, script=SCRIPT)
    response = Response(page, mimetype="text/html")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'sha256-{SCRIPT_HASH}'; form-action {origin_of(redirect_uri)}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return response


def origin_of(uri: str) -> str:
    """As a policy names it (CSP level 3 section 2.3.1): of a private-use scheme the scheme alone."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"
