"""The application: `create_app(settings)` reads as a table of contents."""

from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, request

from tokenserver import readiness, survey, vitals
from tokenserver.access import routes as access_routes
from tokenserver.admin import routes as admin_routes
from tokenserver.auth import recovery_routes
from tokenserver.auth import routes as auth_routes
from tokenserver.background import Background
from tokenserver.clients import routes as client_routes
from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, StoreUnavailable
from tokenserver.identity import routes as identity_routes
from tokenserver.identity import user_routes, user_session_routes
from tokenserver.identity.second_factors import passkey_routes
from tokenserver.identity.second_factors import routes as second_factor_routes
from tokenserver.oauth import consent_routes, denials, endpoints
from tokenserver.oauth import errors as oauth_errors
from tokenserver.oauth.endpoints.description import described
from tokenserver.oauth.endpoints.door import Door
from tokenserver.oauth.endpoints.request import Server
from tokenserver.pages import (
    account,
    assets,
    consent,
    device,
    forgot_password,
    login,
    register,
    rendering,
    reset_password,
    verify_email,
)
from tokenserver.pages import error as error_page
from tokenserver.pages.admin import routes as console
from tokenserver.pages.applications import ApplicationsPage
from tokenserver.pages.asked import Recency
from tokenserver.pages.forms import Forms
from tokenserver.pages.own_sessions import SessionsPage
from tokenserver.pages.profile import PasswordPage, ProfilePage
from tokenserver.pages.second_step import SecondSteps
from tokenserver.pages.security import SecurityPage
from tokenserver.pages.sign_in import SignInForms
from tokenserver.posts import routes as post_routes
from tokenserver.posts.models import author_of
from tokenserver.rooms import Rooms
from tokenserver.signals import logs, shared, traces
from tokenserver.storage import redis_rules, sql_spans
from tokenserver.storage.clock import Clock
from tokenserver.verify.errors import Refusal
from tokenserver.verify.flask import Guard
from tokenserver.web import (
    docs_page,
    health,
    metrics,
    openapi,
    problems,
    rate_limit,
    request_context,
    security_headers,
)
from tokenserver.web.insiders import Insiders

MAX_BODY_BYTES = 64 * 1024
# What people open in a browser.
PAGES = (
    "/login",
    "/register",
    "/consent",
    "/device",
    "/account",
    "/forgot-password",
    "/reset-password",
    "/verify-email",
    "/oauth/authorize",
    "/oauth/logout",
)
# What needs neither a clock nor a store.
PUBLISHED = ("/healthz", "/readyz", "/metrics", "/.well-known/", "/docs", "/openapi.json", "/pages/")
# Who renders the errors below a path; problem details everywhere else.
TONGUES = dict.fromkeys(PAGES, error_page.render) | {
    "/oauth/": oauth_errors.render,
    console.ENTRY: console.render_error,
}


def create_app(settings: Settings | None = None, is_draining: Callable[[], bool] = lambda: False) -> Flask:
    settings = settings or Settings.load()
    app = Flask("tokenserver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # A path with an empty segment is no other spelling: the redirect would be built from the Host header.
    app.url_map.merge_slashes = False
    rooms = app.extensions["tokenserver"] = Rooms.furnish(app, settings)

    request_context.register(app)
    rate_limit.register(app)
    security_headers.register(app, https=settings.issuer.startswith("https:"))
    problems.register(app, TONGUES)
    _know_each_path_by_one_spelling(app)
    _decide_nothing_by_a_wrong_clock(app, rooms.clock)
    denials.register(app, rooms.trail)
    guard = Guard(
        rooms.active_tokens.verifier, authorize=rooms.admission.admit, on_error=_refused(settings.audience)
    )
    guard.init_app(app)

    app.register_blueprint(
        auth_routes.blueprint(
            feed=rooms.feed,
            registration=rooms.registration,
            sessions=rooms.sessions,
            pipeline=rooms.pipeline,
        )
    )
    app.register_blueprint(recovery_routes.blueprint(rooms.recovery))
    app.register_blueprint(
        user_routes.blueprint(
            feed=rooms.feed, people=rooms.people, rights=rooms.rights, sessions=rooms.sessions, pages=rooms.pages
        )
    )
    app.register_blueprint(
        user_session_routes.blueprint(
            feed=rooms.feed, people=rooms.people, rights=rooms.rights, sessions=rooms.sessions, pages=rooms.pages
        )
    )
    app.register_blueprint(
        access_routes.blueprint(
            feed=rooms.feed,
            people=rooms.people,
            pages=rooms.pages,
            owners={"posts": author_of},
        )
    )
    app.register_blueprint(
        client_routes.blueprint(
            feed=rooms.feed,
            clients=rooms.clients,
            sessions=rooms.sessions,
            pages=rooms.pages,
            fetcher=rooms.fetcher,
        )
    )
    app.register_blueprint(post_routes.blueprint(database=rooms.database, people=rooms.people, pages=rooms.pages))
    app.register_blueprint(
        admin_routes.blueprint(
            feed=rooms.feed, trail=rooms.trail, sealer=rooms.sealer, keys=rooms.keys, pages=rooms.pages
        )
    )
    app.register_blueprint(
        consent_routes.blueprint(feed=rooms.feed, consents=rooms.consents, clients=rooms.clients, pages=rooms.pages)
    )
    app.register_blueprint(
        identity_routes.blueprint(
            feed=rooms.feed,
            people=rooms.people,
            accounts=rooms.own_account,
            factors=rooms.second_factors,
            sessions=rooms.sessions,
            pages=rooms.pages,
        )
    )
    app.register_blueprint(
        second_factor_routes.blueprint(
            database=rooms.database,
            people=rooms.people,
            rights=rooms.rights,
            login=rooms.login,
            factors=rooms.second_factors,
            issuer_name=urlsplit(settings.issuer).netloc,
        )
    )
    app.register_blueprint(
        passkey_routes.blueprint(
            people=rooms.people, login=rooms.login, factors=rooms.second_factors, passkeys=rooms.passkeys
        )
    )
    server = Server(
        settings=settings,
        keys=rooms.keys,
        clients=rooms.clients,
        initial_access_tokens=rooms.initial_access_tokens,
        limits=rooms.limits,
        client_keys=rooms.client_keys,
        client_authentication=rooms.client_authentication,
        client_limits=rooms.client_limits,
        fetcher=rooms.fetcher,
        rooms=rooms.collaborators,
        pipeline=rooms.pipeline,
        active_tokens=rooms.active_tokens,
        browser_sessions=rooms.browser_sessions,
        interactions=rooms.interactions,
        cookies=rooms.cookies,
        authorization_requests=rooms.authorization_requests,
        authorization=rooms.authorization,
        admission=rooms.admission,
        revocation_list=rooms.revocation_list,
        endpoint_paths=endpoints.PATHS,
        show=rendering.render,
    )
    app.register_blueprint(endpoints.blueprint(server))
    forms = Forms(rooms.cookies, lambda: rooms.keys.secrets("csrf"), settings.issuer)
    sign_in_forms = SignInForms(
        cookies=rooms.cookies,
        forms=forms,
        clients=rooms.clients,
        login=rooms.login,
        known_devices=rooms.known_devices,
        factors=rooms.second_factors,
        passkeys=rooms.passkeys,
        steps=SecondSteps(rooms.database, lambda: rooms.keys.secrets("second step")),
        browser_sessions=rooms.browser_sessions,
        sends_mail=settings.sends_mail,
        may_register=rooms.registration.is_open,
    )
    app.register_blueprint(
        login.blueprint(
            cookies=rooms.cookies,
            forms=forms,
            people=rooms.people,
            sign_in_forms=sign_in_forms,
            browser_sessions=rooms.browser_sessions,
            interactions=rooms.interactions,
        )
    )
    app.register_blueprint(
        consent.blueprint(
            cookies=rooms.cookies,
            forms=forms,
            clients=rooms.clients,
            people=rooms.people,
            browser_sessions=rooms.browser_sessions,
            interactions=rooms.interactions,
        )
    )
    app.register_blueprint(
        device.blueprint(
            cookies=rooms.cookies,
            forms=forms,
            clients=rooms.clients,
            people=rooms.people,
            rights=rooms.rights,
            browser_sessions=rooms.browser_sessions,
            interactions=rooms.interactions,
            devices=rooms.collaborators.devices,
        )
    )
    app.register_blueprint(
        register.blueprint(
            forms=forms,
            clients=rooms.clients,
            interactions=rooms.interactions,
            registration=rooms.registration,
            sign_in_forms=sign_in_forms,
        )
    )
    app.register_blueprint(_account(rooms, forms))
    app.register_blueprint(forgot_password.blueprint(forms=forms, recovery=rooms.recovery))
    app.register_blueprint(reset_password.blueprint(cookies=rooms.cookies, forms=forms, recovery=rooms.recovery))
    app.register_blueprint(verify_email.blueprint(cookies=rooms.cookies, forms=forms, recovery=rooms.recovery))
    app.register_blueprint(
        console.blueprint(
            app,
            settings=settings,
            cookies=rooms.cookies,
            forms=forms,
            interactions=rooms.interactions,
            key_ring=rooms.keys,
            feed=rooms.feed,
        )
    )
    app.register_blueprint(console.entry())
    app.register_blueprint(assets.blueprint())
    is_insider = Insiders(settings).includes_caller
    app.register_blueprint(health.blueprint(lambda: readiness.parts(rooms), is_draining, is_insider))
    app.register_blueprint(metrics.blueprint(shared.folder(), lambda: survey.collect(rooms), is_insider))
    app.register_blueprint(openapi.blueprint(settings.issuer, described(settings.issuer)))
    app.register_blueprint(docs_page.blueprint())
    app.wsgi_app = Door(  # type: ignore[method-assign]
        app,
        server,
        require_clock=rooms.clock.require,
        max_body=MAX_BODY_BYTES,
        trusted_proxies=settings.trusted_proxies,
    )
    return app


def _account(rooms: Rooms, forms: Forms) -> Blueprint:
    recency = Recency(rooms.second_factors)
    return account.blueprint(
        account.Account(
            cookies=rooms.cookies,
            forms=forms,
            people=rooms.people,
            browser_sessions=rooms.browser_sessions,
            interactions=rooms.interactions,
            recency=recency,
        ),
        pages=(
            ProfilePage(rooms.own_account, recency, rooms.recovery),
            PasswordPage(rooms.own_account, recency),
            SecurityPage(
                database=rooms.database,
                factors=rooms.second_factors,
                passkeys=rooms.passkeys,
                recency=recency,
                issuer_name=urlsplit(rooms.settings.issuer).netloc,
            ),
            SessionsPage(rooms.feed, rooms.sessions, rooms.clients),
            ApplicationsPage(rooms.feed, rooms.consents, rooms.clients),
        ),
    )


def _know_each_path_by_one_spelling(app: Flask) -> None:
    @app.before_request
    def check() -> None:
        # Werkzeug takes "//metrics" for "/metrics"; a balancer that refuses the one lets the other by.
        if request.environ["PATH_INFO"].startswith("//"):
            abort(404)


def _decide_nothing_by_a_wrong_clock(app: Flask, clock: Clock) -> None:
    @app.before_request
    def check() -> None:
        if not request.path.startswith(PUBLISHED):
            clock.require()


def create_worker(is_draining: Callable[[], bool] = lambda: False) -> Flask:
    """For server processes: with the chores that run beside the requests. `is_draining`: no more requests are
    wanted, though those that come are answered.
    """
    settings = Settings.load()
    logs.configure(settings.log_format, settings.log_level, request_context.who)
    logs.catch_the_uncaught()
    shared.enter(Path(settings.metrics_dir) if settings.metrics_dir else None)
    app = create_app(settings, is_draining=is_draining)
    rooms = rooms_of(app)
    if settings.otlp_url:
        _trace(rooms)
    rooms.clock.watch()
    rooms.ensure_keys()
    # Away now is no reason not to start: it answers 503 and heals. Wrong for good is one.
    with suppress(StoreUnavailable):
        redis_rules.require(rooms.store)
    Background(rooms).start()
    vitals.watch(rooms)
    return app


def _trace(rooms: Rooms) -> None:
    settings = rooms.settings
    try:
        exporter = traces.otlp(settings.otlp_url)
    except traces.NotInstalled:
        raise ConfigurationError("TOKENSERVER_OTLP_URL needs the extra `otel`: tokenserver[otel]") from None
    trusts = settings.trusted_proxies > 0
    traces.begin(exporter, percent=settings.trace_percent, trusts_callers=trusts, version=version("tokenserver"))
    sql_spans.follow(rooms.database.engine)


def rooms_of(app: Flask) -> Rooms:
    return cast("Rooms", app.extensions["tokenserver"])


def _refused(realm: str) -> Callable[[Refusal], Response]:
    def answer(refusal: Refusal) -> Response:
        failure = problems.failure_of(refusal)._replace(headers=refusal.headers(realm))
        request_context.current().failure = failure
        return problems.speak(TONGUES, failure, refusal)

    return answer
