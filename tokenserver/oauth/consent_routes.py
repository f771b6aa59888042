"""`/users/me/consents`: what one let clients have, and taking it back."""

from datetime import datetime
from typing import Any

from flask import Blueprint
from marshmallow import Schema, fields

from tokenserver.clients.registry import Clients
from tokenserver.oauth.consent import Consents
from tokenserver.storage.feed import Feed
from tokenserver.verify.flask import requires
from tokenserver.web.holder import current_user_id
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses

LISTING = "consents"


class ConsentSchema(Schema):
    client_id = fields.String()
    client_name = fields.String()
    scope = fields.String(metadata={"description": "Scopes with spaces between them."})
    claims = fields.List(fields.String(), metadata={"description": "Claims that were asked for by name."})
    created_at = fields.AwareDateTime(format="iso")
    updated_at = fields.AwareDateTime(format="iso")


class ConsentPageSchema(Schema):
    items = fields.List(fields.Nested(ConsentSchema))
    next_cursor = fields.String(allow_none=True)


def blueprint(*, feed: Feed, consents: Consents, clients: Clients, pages: Pages) -> Blueprint:
    routes = Blueprint("consents", __name__, url_prefix="/users/me/consents")

    @routes.get("")
    @requires()
    @queries(PageQuerySchema)
    @gives(ConsentPageSchema)
    @refuses((403, "user_required"))
    def list_consents(query: dict[str, Any]) -> dict[str, Any]:
        """List what one let clients have, newest first."""
        limit, position = query["limit"], pages.position(LISTING, query)
        before = (datetime.fromisoformat(position[0]), position[1]) if position else None
        found = consents.of_user(current_user_id(), limit=limit + 1, before=before)
        page = pages.page(LISTING, found, limit, lambda row: [row.created_at.isoformat(), row.client_id])
        page["items"] = [
            {
                "client_id": row.client_id,
                "client_name": client.client_name if (client := clients.find(row.client_id)) else "",
                "scope": row.scope,
                "claims": row.claims,
                "created_at": row.created_at,
                "updated_at": row.updated_at,
            }
            for row in page["items"]
        ]
        return page

    @routes.delete("/<client_id>")
    @requires()
    @gives(None, 204)
    @refuses((403, "user_required"), (404, "consent_not_found"))
    def withdraw_consent(client_id: str) -> None:
        """Take back what one let a client have; its tokens for one's account end at once."""
        user_id = current_user_id()
        feed.change(lambda tx, change: consents.withdraw(tx, change, user_id, client_id))

    return routes
