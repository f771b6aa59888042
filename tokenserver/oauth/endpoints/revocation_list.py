"""The revocation list, for services that verify tokens by themselves: signed, public and cacheable.

Who prefers to wait for the next one does so in front of this (`waiting`).
"""

from flask import Response, request

from tokenserver.oauth.endpoints.request import Server
from tokenserver.tokens.revocation_list import REUSED
from tokenserver.verify.list_token import TYP


def view(server: Server) -> Response:
    issue = server.revocation_list.current()
    response = Response(issue.token, mimetype=f"application/{TYP}")
    # RFC 9111 section 5.2.2: any cache may keep it for as long as this process would, and no longer.
    response.headers["Cache-Control"] = f"public, max-age={REUSED}"
    response.set_etag(issue.etag, weak=True)
    # RFC 7240 section 2: what a cache keeps of a request that waited is for others that would wait.
    response.vary.add("Prefer")
    # RFC 9110 section 13.1.2: 304 for who has it already.
    response.make_conditional(request)
    return response
