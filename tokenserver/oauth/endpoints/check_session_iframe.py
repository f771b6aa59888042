"""The page that clients embed to ask whether the user is still signed in (OIDC Session Management section 3.3)."""

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Final

from flask import Response, request

from tokenserver.oauth.endpoints.request import Server

SCRIPT: Final = files(__package__).joinpath("check_session_iframe.js").read_text(encoding="utf-8")
PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Session</title>
</head>
<body data-cookie="{cookie}">
<script>{script}</script>
</body>
</html>
"""
# The one page that anybody may embed: it shows nothing, has nothing to click, and answers a word to who asks.
POLICY: Final = (
    f"default-src 'none'; script-src 'sha256-{b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'; "
    "frame-ancestors *; base-uri 'none'; form-action 'none'"
)


def view(server: Server) -> Response:
    response = Response(PAGE.format(cookie=server.cookies.browser_state_name, script=SCRIPT), mimetype="text/html")
    response.headers["Content-Security-Policy"] = POLICY
    # Within a page that is isolated (COEP: require-corp) too: it asks that of what it embeds.
    response.headers["Cross-Origin-Embedder-Policy"] = "require-corp"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.headers["Cache-Control"] = "public, max-age=300"
    response.set_etag(hashlib.sha256(response.data).hexdigest()[:32])
    response.make_conditional(request)
    return response
