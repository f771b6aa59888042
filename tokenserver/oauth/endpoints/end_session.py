"""The end of a browser's session, asked for by a client or by the user (OIDC RP-Initiated Logout section 2)."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from flask import Response, request

from tokenserver.oauth import frontchannel_logout, logout_request
from tokenserver.oauth.endpoints.request import Server, read_form, read_query
from tokenserver.oauth.errors import InvalidRequest
from tokenserver.oauth.logout_request import LogoutRequest
from tokenserver.oauth.session_state import origin_of
from tokenserver.web.request_context import current

PATH: Final = "/oauth/logout"
# Of our own form alone: that the user was asked, bound to the cookie of the session.
CONFIRMED: Final = "confirmed"
# What the user was asked about.
KEPT: Final = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state")
MAX_QUERY: Final = 16 * 1024


def view(server: Server) -> Response:
    is_form = request.method == "POST"
    parameters = read_form().parameters if is_form else read_query()
    if is_form and CONFIRMED not in parameters:
        return _again(parameters)
    cookie = server.cookies.session()
    signed_in = server.browser_sessions.find(cookie)
    server.rooms.feed.sync()
    asked = logout_request.read(parameters, server.clients, server.keys, server.settings.issuer)
    current().client_id = asked.client.client_id if asked.client else None
    if cookie is None or signed_in is None:
        if asked.fault:
            raise InvalidRequest(asked.fault)
        return _signed_out(server, asked, None)
    # Section 2: the client proves by an ID token which session it means, or the user is asked (ASVS 10.6.2).
    is_meant = asked.fault is None and asked.session_id == str(signed_in.session_id)
    if not is_meant and not (is_form and _is_confirmed(server, cookie, parameters[CONFIRMED])):
        return _ask(server, cookie, asked, parameters)
    ended = server.browser_sessions.sign_out(cookie)
    return _signed_out(server, asked, ended.session_id if ended else None)


def _again(parameters: Mapping[str, str]) -> Response:
    """With a form of another site a browser sends no cookie of ours (SameSite=Lax); with what looks like a link, it
    does."""
    query = urlencode(parameters)
    if len(query) > MAX_QUERY:
        raise InvalidRequest("The request is too large.")
    return _redirect(f"{PATH}?{query}")


def _ask(server: Server, cookie: str, asked: LogoutRequest, parameters: Mapping[str, str]) -> Response:
    """What is wrong with the request, too: whoever is sent here can sign out at least."""
    kept = {name: parameters[name] for name in KEPT if name in parameters}
    # Browsers ask the policy of a form about the redirect that follows it, too.
    onward = [f"{urlsplit(asked.return_to).scheme}:"] if asked.return_to else []
    return server.show(
        "logout.html",
        400 if asked.fault else 200,
        forms=("'self'", *onward),
        fault=asked.fault,
        client_name=asked.client.client_name if asked.client else "",
        parameters=kept | {CONFIRMED: _words(server, cookie)[0]},
        path=PATH,
    )


def _signed_out(server: Server, asked: LogoutRequest, session_id: UUID | None) -> Response:
    """`session_id`: what ended just now."""
    frames = _frames(server, session_id) if session_id else []
    if asked.return_to and not frames:
        response = _redirect(asked.return_to)
    else:
        # Front-Channel Logout section 3: pages of those clients, and of nobody else.
        origins = sorted({origin_of(uri) for uri in frames})
        response = server.show(
            "signed_out.html",
            has_script=bool(asked.return_to),
            frames=origins,
            uris=frames,
            return_to=asked.return_to,
        )
    server.cookies.forget_session(response)
    return response


def _frames(server: Server, session_id: UUID) -> list[str]:
    took_part = [server.clients.find(client_id) for client_id in server.rooms.sessions.clients_of(session_id)]
    return frontchannel_logout.frames([each for each in took_part if each], server.settings.issuer, session_id)


def _is_confirmed(server: Server, cookie: str, word: str) -> bool:
    return any(hmac.compare_digest(word.encode(), each.encode()) for each in _words(server, cookie))


def _words(server: Server, cookie: str) -> list[str]:
    """One for each secret of the ring."""
    macs = [hmac.digest(secret, cookie.encode(), "sha256") for secret in server.keys.secrets("logout form")]
    return [urlsafe_b64encode(mac).rstrip(b"=").decode() for mac in macs]


def _redirect(location: str) -> Response:
    return Response(status=303, headers={"Location": location})
