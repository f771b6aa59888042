"""RFC 6749 section 3.1, OIDC Core section 3.1.2: by GET or POST; and where a browser goes on after a sign-in or a
consent.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from flask import Response, request

from tokenserver.oauth.authorization import ConsentFirst, SignInFirst
from tokenserver.oauth.authorization_request import Answered, AuthorizationRequest
from tokenserver.oauth.endpoints.request import Server, read_form, read_query
from tokenserver.oauth.errors import AccessDenied, InvalidRequest, OAuthError
from tokenserver.oauth.interaction import Interaction
from tokenserver.oauth.response_modes import Target, respond
from tokenserver.oauth.scope import to_text
from tokenserver.oauth.session_state import browser_state, session_state
from tokenserver.web.cookies import new_cookie
from tokenserver.web.problems import failure_of
from tokenserver.web.request_context import current

LOGIN: Final = "/login"
CONSENT: Final = "/consent"
RESUME: Final = "/oauth/authorize/{id}"
MAX_QUERY: Final = 16 * 1024
GONE: Final = "This sign-in was begun too long ago or in another browser. Start again from the application."


def view(server: Server) -> Response:
    sent = _parameters()
    server.rooms.feed.sync()
    try:
        asked = server.authorization_requests.read(sent)
    except Answered as answered:
        return _refuse(server, answered.error, answered.target, answered.client.client_id)
    query = urlencode(sent)
    if request.method == "POST" and server.cookies.session() is None and len(query) <= MAX_QUERY:
        # With a form of another site a browser sends no cookie of ours (SameSite=Lax); with a redirect it does.
        return Response(status=303, headers={"Location": f"{request.path}?{query}"})
    return _go_on(server, asked, None)


def resume(server: Server) -> Response:
    """The request that a pending interaction holds."""
    interaction = server.interactions.find((request.view_args or {})["interaction_id"], server.cookies.browser())
    if interaction is None or "parameters" not in interaction.data:
        raise InvalidRequest(GONE, reason="no_interaction")
    server.rooms.feed.sync()
    try:
        asked = server.authorization_requests.again(interaction.data["parameters"])
    except Answered as answered:
        server.interactions.end(interaction.id)
        return _refuse(server, answered.error, answered.target, answered.client.client_id)
    if request.args.get("cancel") == "1":
        # The user went away from the sign-in (RFC 6749 section 4.1.2.1).
        server.interactions.end(interaction.id)
        return _refuse(server, AccessDenied(), asked.target, asked.client.client_id)
    return _go_on(server, asked, interaction)


def _parameters() -> dict[str, str]:
    # RFC 6749 section 3.1: GET must, POST may be supported; each has its parameters in one place.
    if request.method == "POST":
        return dict(read_form().parameters)
    return read_query()


def _go_on(server: Server, asked: AuthorizationRequest, interaction: Interaction | None) -> Response:
    current().client_id = asked.client.client_id
    signed_in = server.browser_sessions.find(server.cookies.session())
    try:
        parameters = server.authorization.finish(asked, signed_in, interaction)
    except SignInFirst as first:
        within = {"step_up": str(first.within) if first.within else None}
        return _to_page(server, LOGIN, asked, interaction, within)
    except ConsentFirst as consent:
        wanted = consent.wanted
        shown: dict[str, object] = {"scope": to_text(wanted.scope), "claims": sorted(wanted.claims)}
        return _to_page(server, CONSENT, asked, interaction, shown)
    except OAuthError as error:
        if interaction is not None:
            server.interactions.end(interaction.id)
        return _refuse(server, error, asked.target, asked.client.client_id)
    if interaction is not None:
        server.interactions.end(interaction.id)
    if not asked.is_openid or signed_in is None:
        return respond(asked.target, parameters | _of_every_answer(server))
    # Session Management section 2: what the client's page can ask the check_session iframe about.
    state = browser_state(signed_in.session_id)
    parameters["session_state"] = session_state(asked.client.client_id, asked.target.redirect_uri, state)
    response = respond(asked.target, parameters | _of_every_answer(server))
    server.cookies.keep_browser_state(response, state)
    return response


def _to_page(
    server: Server,
    page: str,
    asked: AuthorizationRequest,
    interaction: Interaction | None,
    shown: Mapping[str, object],
) -> Response:
    browser = server.cookies.browser() or new_cookie()
    if interaction is None:
        data = {
            "parameters": dict(asked.parameters),
            "login_hint": asked.parameters.get("login_hint"),
            "ui_locales": asked.parameters.get("ui_locales"),
            "redirect_uri": asked.target.redirect_uri,
            **shown,
        }
        interaction = server.interactions.begin(browser, resume=RESUME, client_id=asked.client.client_id, data=data)
    elif shown:
        kept = {name: value for name, value in interaction.data.items() if name not in {"consent", "consent_user"}}
        interaction = Interaction(
            interaction.id, interaction.began_at, interaction.resume, interaction.client_id, {**kept, **shown}
        )
        server.interactions.replace(interaction, browser)
    location = f"{page}?{urlencode({'interaction': interaction.id})}"
    response = Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})
    server.cookies.keep_browser(response, browser)
    return response


def _refuse(server: Server, error: OAuthError, target: Target, client_id: str) -> Response:
    context = current()
    context.client_id = client_id
    context.failure = failure_of(error)  # a denial is recorded, although it travels in a redirect
    parameters = {"error": error.error, "error_description": error.public}
    return respond(target, parameters | _of_every_answer(server))


def _of_every_answer(server: Server) -> dict[str, str]:
    # RFC 9207 section 2: errors too.
    return {"iss": server.settings.issuer}
