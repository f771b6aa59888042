"""`/account/applications`: what one let clients have, and taking it back."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from flask import Response

from tokenserver.clients.registry import Clients
from tokenserver.errors import NotFound
from tokenserver.oauth.consent import Consents
from tokenserver.oauth.models import Consent
from tokenserver.pages.asked import Action, Asked, Fields, page
from tokenserver.pages.asking import shown_link
from tokenserver.pages.consent import in_words, named
from tokenserver.storage.feed import Feed

SHOWN: Final = 100


class ApplicationsPage:
    path = "/account/applications"
    needs_recent_sign_in = False

    def __init__(self, feed: Feed, consents: Consents, clients: Clients) -> None:
        self._feed = feed
        self._consents = consents
        self._clients = clients
        self.actions: Mapping[str, Action] = {"withdraw": self._withdraw}

    def show(self, asked: Asked) -> Response:
        found = self._consents.of_user(asked.person.id, limit=SHOWN)
        return page("account_applications.html", asked, applications=[self._described(row) for row in found])

    def _described(self, row: Consent) -> dict[str, Any]:
        client = self._clients.find(row.client_id)
        return {
            "client_id": row.client_id,
            "name": (client.client_name if client else None) or row.client_id,
            "home": shown_link(client.metadata.client_uri) if client else None,
            "scopes": in_words(row.scope.split()),
            "claims": named(row.claims),
            "since": row.created_at,
        }

    def _withdraw(self, asked: Asked, fields: Fields) -> None:
        client_id = fields.get("client", "")
        with suppress(NotFound):  # it was withdrawn meanwhile
            self._feed.change(lambda tx, change: self._consents.withdraw(tx, change, asked.person.id, client_id))
