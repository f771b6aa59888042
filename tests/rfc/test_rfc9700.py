"""RFC 9700, where it asks for more than the others: rotation, reuse, the end of a chain, the password grant."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from tests.answers import granted, refused
from tests.conftest import PASSWORD, Api, Apps
from tests.redis_access import raw_redis
from tokenserver.app import rooms_of
from tokenserver.audit.models import AuditEvent
from tokenserver.rooms import Rooms
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.models import RefreshFamily


def test_reused_refresh_token_ends_the_chain(apps: Apps, api_of: Callable[[Flask], Api]):
    """Section 4.14.2: the active token too, its access tokens too, and somebody is told."""
    app = apps(refresh_grace=0)
    api = api_of(app)
    first, other = api.signed_in(), api.login()
    second = granted(api.refresh(first["refresh_token"]))
    third = granted(api.refresh(second["refresh_token"]))
    granted(api.me(third["access_token"]))
    refused(api.refresh(first["refresh_token"]), 401, "invalid_refresh_token")
    refused(api.refresh(third["refresh_token"]), 401, "invalid_refresh_token")
    for tokens in (first, second, third):
        refused(api.me(tokens["access_token"]), 401, "invalid_token")
    query = select(AuditEvent).where(AuditEvent.event == "refresh_token:reused")
    (event,) = rooms_of(app).database.read(lambda tx: tx.scalars(query).all())
    assert event.outcome == "denied"
    # Another sign-in of the same user has nothing to do with it.
    granted(api.me(other["access_token"]))
    granted(api.refresh(other["refresh_token"]))


def test_refresh_token_ends_when_idle_and_absolutely(apps: Apps, api_of: Callable[[Flask], Api]):
    """Section 4.14.2; no rotation moves the absolute end."""
    app = apps(refresh_idle_ttl=3600, refresh_token_ttl=10_000)
    api, rooms = api_of(app), rooms_of(app)

    def pass_time(token: str, seconds: int) -> None:
        """As SQL sees it; what Redis and this process knew is gone."""
        family_id, _ = rooms.refresh_tokens.parse(token) or pytest.fail("no token of ours")
        rooms.checkpoints.drain()

        def shift(tx: Transaction) -> None:
            family = tx.get(RefreshFamily, family_id) or pytest.fail("no family")
            family.rotated_at -= timedelta(seconds=seconds)
            family.expires_at -= timedelta(seconds=seconds)

        rooms.database.write(shift)
        raw_redis(rooms.store).delete(rooms.feed.family_key(family_id))
        rooms.refresh_tokens._families.clear()

    forgotten, used = api.signed_in(), api.login()
    pass_time(forgotten["refresh_token"], 3601)
    refused(api.refresh(forgotten["refresh_token"]), 401, "invalid_refresh_token")
    for _ in range(3):
        pass_time(used["refresh_token"], 3000)
        used = granted(api.refresh(used["refresh_token"]))
    pass_time(used["refresh_token"], 1001)
    refused(api.refresh(used["refresh_token"]), 401, "invalid_refresh_token")


def test_password_grant_is_for_clients_that_registered_it(api: Api, rooms: Rooms):
    """Section 2.4 forbids it; a deviation, off unless an admin turned it on for a client."""
    api.register()
    _, secret = rooms.clients.create(client_id="web", client_name="W", grant_types=["client_credentials"])
    form = {"grant_type": "password", "username": "ann", "password": PASSWORD}
    refused(api.token(("web", str(secret)), **form), 400, "unauthorized_client")
