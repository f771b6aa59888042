"""`/device`: a user types the code that a device shows, and decides what it gets (RFC 8628 section 3.3)."""

from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response
from werkzeug.exceptions import BadRequest

from tokenserver.access.rights import Rights
from tokenserver.clients.registry import Clients
from tokenserver.identity.people import People
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.browser_session import BrowserSessions, SignedIn
from tokenserver.oauth.device import Devices, Waiting
from tokenserver.oauth.interaction import Interactions
from tokenserver.pages.consent import in_words
from tokenserver.pages.forms import Forms
from tokenserver.pages.refused import Shown
from tokenserver.pages.rendering import go_on, render
from tokenserver.web.cookies import Cookies
from tokenserver.web.language import marked, translated
from tokenserver.web.request_context import current

MAX_CODE: Final = 32  # with whatever people put between the letters
UNKNOWN: Final = marked("No device waits with this code. Compare it with the one that the device shows.")
# Nothing else is an answer: a text is never read as a yes or a no.
ANSWERS: Final = frozenset({"allow", "deny"})


def blueprint(
    *,
    cookies: Cookies,
    forms: Forms,
    clients: Clients,
    people: People,
    rights: Rights,
    browser_sessions: BrowserSessions,
    interactions: Interactions,
    devices: Devices,
) -> Blueprint:
    routes = Blueprint("device", __name__)

    def ask_for_code(browser: str, user_code: str, *, is_wrong: bool = False) -> Response:
        page = render(
            "device.html",
            400 if is_wrong else 200,
            forms=("'self'",),
            user_code=user_code,
            refusal=Shown(400, "device_not_found", translated(UNKNOWN), {}) if is_wrong else None,
            csrf=forms.csrf(browser),
        )
        return forms.keep_browser(page, browser)

    def ask_to_confirm(waiting: Waiting, signed_in: SignedIn, browser: str) -> Response | None:
        client, person = clients.find(waiting.client_id), people.find(signed_in.user_id)
        if client is None or person is None:
            return None
        held = rights.of(person.id).permissions
        return render(
            "device_confirm.html",
            forms=("'self'",),
            user_code=waiting.user_code,
            name=client.client_name or client.client_id,
            scopes=in_words(held if waiting.scope is None else scopes.narrowed(waiting.scope, held)),
            person=person,
            csrf=forms.csrf(browser),
        )

    @routes.get("/device")
    def enter() -> Response:
        # Section 3.3.1: from `verification_uri_complete` it is filled in, and never sent without the user.
        return ask_for_code(forms.browser(), forms.query().get("user_code", "")[:MAX_CODE])

    @routes.post("/device")
    def answer() -> Response:
        fields, browser = forms.read()
        user_code, decision = fields.get("user_code", "")[:MAX_CODE], fields.get("decision")
        signed_in = browser_sessions.find(cookies.session())
        if signed_in is None:
            # Whether the code is known is told to nobody who isn't signed in.
            resume = f"/device?user_code={quote(user_code, safe='')}"
            interaction = interactions.begin(browser, resume=resume, client_id=None, data={})
            return go_on(f"/login?interaction={interaction.id}")
        current().actor = str(signed_in.user_id)
        who = {"session_id": signed_in.session_id, "user_id": signed_in.user_id}
        if decision is None:
            waiting = devices.enter(user_code, **who)
            page = ask_to_confirm(waiting, signed_in, browser) if waiting else None
            return page or ask_for_code(browser, user_code, is_wrong=True)
        if decision not in ANSWERS:
            raise BadRequest
        # Section 5.4: both refuse who didn't enter the code in this session.
        if decision == "allow":
            devices.approve(user_code, **who)
        else:
            devices.deny(user_code, **who)
        return render("device_done.html", is_allowed=decision == "allow")

    return routes
