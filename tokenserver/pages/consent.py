"""`/consent`: may this client have that? (OIDC Core section 3.1.2.4)

The page asks and notes the answer in the interaction; what follows from it is decided where it is resumed.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import UUID

from flask import Blueprint, Response
from werkzeug.exceptions import BadRequest

from tokenserver.access.permissions import PERMISSIONS
from tokenserver.clients.registry import Clients
from tokenserver.identity.people import People, Person
from tokenserver.oauth import scope as scopes
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.interaction import Interaction, Interactions
from tokenserver.pages.asking import Asking, asking
from tokenserver.pages.forms import Forms
from tokenserver.pages.login import pending
from tokenserver.pages.rendering import go_on
from tokenserver.pages.rendering import render as render_page
from tokenserver.web.cookies import Cookies
from tokenserver.web.language import marked, translated

ANSWERS: Final = {"allow": "allowed", "deny": "denied"}
# OIDC Core sections 5.4 and 11.
STANDARD: Final = {
    "openid": marked("Know that you are the same person when you come back"),
    "profile": marked("See your profile: your name, picture, birthdate and the like"),
    "email": marked("See your e-mail address"),
    "address": marked("See your postal address"),
    "phone": marked("See your phone number"),
    "offline_access": marked("Keep this access while you are away, until you take it back"),
}
# OIDC Core section 5.1.
CLAIMS: Final = {
    "address": marked("postal address"),
    "birthdate": marked("birthdate"),
    "email": marked("e-mail address"),
    "email_verified": marked("whether the e-mail address is confirmed"),
    "family_name": marked("family name"),
    "gender": marked("gender"),
    "given_name": marked("given name"),
    "locale": marked("language"),
    "middle_name": marked("middle name"),
    "name": marked("name"),
    "nickname": marked("nickname"),
    "phone_number": marked("phone number"),
    "phone_number_verified": marked("whether the phone number is confirmed"),
    "picture": marked("picture"),
    "preferred_username": marked("user name"),
    "profile": marked("profile page"),
    "updated_at": marked("when the profile was last changed"),
    "website": marked("website"),
    "zoneinfo": marked("time zone"),
}


def blueprint(
    *,
    cookies: Cookies,
    forms: Forms,
    clients: Clients,
    people: People,
    browser_sessions: BrowserSessions,
    interactions: Interactions,
) -> Blueprint:
    routes = Blueprint("consent", __name__)

    def who() -> Person | None:
        signed_in = browser_sessions.find(cookies.session())
        return people.find(signed_in.user_id) if signed_in else None

    @routes.get("/consent")
    def ask() -> Response:
        browser = forms.browser()
        interaction = pending(interactions, forms.query().get("interaction", ""), browser)
        person = who()
        asks = asking(clients, interaction)
        if person is None or asks is None:
            return go_on(f"/login?interaction={interaction.id}")
        return render(interaction, asks, person, forms.csrf(browser))

    @routes.post("/consent")
    def answer() -> Response:
        fields, browser = forms.read()
        interaction = pending(interactions, fields.get("interaction", ""), browser)
        given = ANSWERS.get(fields.get("decision", ""))
        if given is None:
            raise BadRequest
        person = who()
        if person is None:
            return go_on(f"/login?interaction={interaction.id}")
        if fields.get("user") != str(person.id):
            # Somebody else signed in in this browser meanwhile: they have not been asked yet.
            return go_on(f"/consent?interaction={interaction.id}")
        interactions.replace(answered(interaction, given, person.id), browser)
        return go_on(interaction.resume)

    return routes


def answered(interaction: Interaction, given: str, user_id: UUID) -> Interaction:
    """`given`: "allowed" or "denied", by this user and no other."""
    return replace(interaction, data={**interaction.data, "consent": given, "consent_user": str(user_id)})


def render(interaction: Interaction, asks: Asking, person: Person, csrf: str) -> Response:
    return render_page(
        "consent.html",
        forms=asks.forms,
        images=asks.images,
        asks=asks,
        interaction=interaction,
        person=person,
        scopes=in_words(str(interaction.data.get("scope", "")).split()),
        claims=named(interaction.data.get("claims", ())),
        csrf=csrf,
    )


def in_words(scope: Iterable[str]) -> list[str]:
    ordered = scopes.to_text(scope).split()
    return [translated(STANDARD.get(each) or PERMISSIONS.get(each) or each) for each in ordered]


def named(claims: Iterable[str]) -> list[str]:
    return [translated(CLAIMS.get(name) or name.replace("_", " ")) for name in sorted(claims)]
