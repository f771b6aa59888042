"""The application: `create_app(settings)` reads as a table of contents."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from flask import Flask, Response, g
from werkzeug.middleware.proxy_fix import ProxyFix

from tokenserver.auth import routes as auth_routes
from tokenserver.background import Background, end_with_parent
from tokenserver.config import Settings
from tokenserver.errors import Forbidden, StoreUnavailable
from tokenserver.identity import routes as identity_routes
from tokenserver.oauth import endpoints
from tokenserver.oauth import errors as oauth_errors
from tokenserver.oauth.endpoints.request import Server
from tokenserver.rooms import Rooms
from tokenserver.storage import redis_rules
from tokenserver.verify.claims import Claims
from tokenserver.verify.errors import Refusal
from tokenserver.verify.flask import Guard
from tokenserver.web import health, problems, request_context, security_headers

MAX_BODY_BYTES = 64 * 1024


def create_app(settings: Settings | None = None) -> Flask:
    settings = settings or Settings.load()
    app = Flask("tokenserver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A path with an empty segment is no other spelling: the redirect would be built from the Host header.
    app.url_map.merge_slashes = False
    rooms = app.extensions["tokenserver"] = Rooms.furnish(app, settings)

    if settings.trusted_proxies:
        # The address alone: host and scheme come from the issuer, never from a header.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0)  # type: ignore[method-assign]
    request_context.register(app)
    security_headers.register(app, https=settings.issuer.startswith("https:"))
    problems.register(app, tongues={"/oauth/": oauth_errors.render})
    Guard(rooms.active_tokens.verifier, authorize=_authorize(rooms), on_error=_refused(settings.audience)).init_app(
        app
    )

    app.register_blueprint(
        auth_routes.blueprint(
            settings=settings,
            feed=rooms.feed,
            people=rooms.people,
            rights=rooms.rights,
            sessions=rooms.sessions,
            pipeline=rooms.pipeline,
            limits=rooms.limits,
        )
    )
    app.register_blueprint(
        identity_routes.blueprint(
            feed=rooms.feed,
            people=rooms.people,
            passwords=rooms.passwords,
            login=rooms.login,
            sessions=rooms.sessions,
            pages=rooms.pages,
        )
    )
    app.register_blueprint(
        endpoints.blueprint(
            lambda paths: Server(
                settings=settings,
                keys=rooms.keys,
                clients=rooms.clients,
                rooms=rooms.collaborators,
                pipeline=rooms.pipeline,
                active_tokens=rooms.active_tokens,
                endpoint_paths=paths,
            )
        )
    )
    app.register_blueprint(health.blueprint(_readiness(rooms)))
    return app


def create_worker() -> Flask:
    """For server processes: with the chores that run beside the requests."""
    end_with_parent()
    app = create_app()
    rooms = rooms_of(app)
    logging.basicConfig(
        level=rooms.settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    rooms.keys.ensure(rooms.settings.signing_alg)
    # Away now is no reason not to start: it answers 503 and heals. Wrong for good is one.
    with suppress(StoreUnavailable):
        redis_rules.require(rooms.store)
    Background(rooms).start()
    return app


def rooms_of(app: Flask) -> Rooms:
    return cast("Rooms", app.extensions["tokenserver"])


def _authorize(rooms: Rooms) -> Callable[[Claims, tuple[str, ...]], None]:
    def authorize(claims: Claims, permissions: tuple[str, ...]) -> None:
        holder = g.holder = rooms.active_tokens.holder(claims)
        context = request_context.current()
        context.actor, context.client_id = holder.subject, holder.client_id
        for permission in permissions:
            if permission not in holder.permissions:
                raise Forbidden("You don't hold the permission that this needs.", code="permission_denied")

    return authorize


def _refused(realm: str) -> Callable[[Refusal], Response]:
    def answer(refusal: Refusal) -> Response:
        failure = problems.failure_of(refusal)._replace(headers=refusal.headers(realm))
        return problems.render(failure, refusal)

    return answer


def _readiness(rooms: Rooms) -> dict[str, Callable[[], object]]:
    return {
        "sql": lambda: rooms.database.read(lambda tx: tx.connection().exec_driver_sql("SELECT 1")),
        "redis": rooms.feed.sync,
        "keys": lambda: rooms.keys.signer(rooms.settings.signing_alg),
    }
