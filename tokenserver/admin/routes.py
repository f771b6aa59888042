from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Blueprint

from tokenserver.admin import logs, seal, stats
from tokenserver.admin.schemas import (
    KeysSchema,
    LogPageSchema,
    LogQuerySchema,
    RotationSchema,
    SealSchema,
    StatsQuerySchema,
    StatsSchema,
)
from tokenserver.audit.checkpoint import Sealer
from tokenserver.audit.events import Event
from tokenserver.audit.models import AuditEvent
from tokenserver.audit.record import record
from tokenserver.audit.trail import Trail
from tokenserver.storage.feed import Feed
from tokenserver.storage.sql import Transaction
from tokenserver.tokens.key_lifecycle import Rotation
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.verify.flask import requires
from tokenserver.web.dry_run import Effect, Rehearsed, rehearsable
from tokenserver.web.pagination import PageQuerySchema, Pages
from tokenserver.web.wire import gives, queries, refuses


def blueprint(*, feed: Feed, trail: Trail, sealer: Sealer, keys: KeyRing, pages: Pages) -> Blueprint:
    routes = Blueprint("admin", __name__, url_prefix="/admin")

    @routes.get("/logs")
    @requires("logs:read")
    @queries(LogQuerySchema)
    @gives(LogPageSchema)
    def list_logs(query: dict[str, Any]) -> dict[str, Any]:
        """List access and audit events, newest first"""
        trail.drain_all()
        listing = "logs " + repr(sorted((name, str(query[name])) for name in query.keys() - {"limit", "cursor"}))
        position = pages.position(listing, query)
        before = (datetime.fromisoformat(position[0]), UUID(position[1])) if position else None
        found = feed.database.read(lambda tx: logs.find(tx, query, before))

        def place(event: AuditEvent) -> list[Any]:
            return [event.at.isoformat(), str(event.id)]

        return pages.page(listing, found, query["limit"], place)

    @routes.get("/logs/checkpoint")
    @requires("logs:read")
    @gives(SealSchema)
    def get_checkpoint() -> dict[str, Any]:
        """Tell how far the log is vouched for by signed checkpoints"""
        unsealed = sealer.unsealed()
        return feed.database.read(lambda tx: seal.read(tx, keys)) | {"unsealed": unsealed}

    @routes.get("/stats")
    @requires("stats:read")
    @queries(StatsQuerySchema)
    @gives(StatsSchema)
    def get_stats(query: dict[str, Any]) -> dict[str, Any]:
        """Tell how rights are spread, and how often they were used"""
        trail.drain_all()
        return feed.database.read(lambda tx: stats.read(tx, query["window"]))

    @routes.get("/keys")
    @requires("keys:read")
    @queries(PageQuerySchema)
    @gives(KeysSchema)
    def list_keys(query: dict[str, Any]) -> dict[str, Any]:
        """List the signing keys, without their private parts"""
        position = pages.position("keys", query)
        entries = sorted(keys.entries(), key=lambda entry: entry.kid)
        found = [entry for entry in entries if position is None or entry.kid > position[0]]
        page = pages.page("keys", found, query["limit"], lambda entry: [entry.kid])
        return page | {"items": [entry.to_json() for entry in page["items"]]}

    @routes.post("/keys/rotate")
    @requires("keys:write")
    @rehearsable
    @gives(RotationSchema)
    @refuses((409, "next_key_too_young"), (409, "no_next_key"))
    def rotate_keys(*, dry_run: bool) -> dict[str, Any]:
        """Let the next signing key sign, and publish a new next one"""
        if dry_run:
            keys.check_rotation()
            raise Rehearsed(Effect())
        rotation = keys.rotate()
        feed.database.write(lambda tx: _record(tx, rotation))
        sealer.seal()  # the log is vouched for by a key that is still published
        return {
            "activated": [entry.to_json() for entry in rotation.activated],
            "replaced": [entry.kid for entry in rotation.replaced],
        }

    return routes


def _record(tx: Transaction, rotation: Rotation) -> None:
    for entry in rotation.activated:
        replaced = [old.kid for old in rotation.replaced if old.alg == entry.alg]
        record(tx, Event.SIGNING_KEY_ROTATED, target=entry.kid, replaced=replaced)
