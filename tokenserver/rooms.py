"""Everything a process works with, made from the settings and joined once: the wiring behind `create_app` and the
command line. Nothing here asks SQL or Redis yet.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask

from tokenserver.access.rights import Rights
from tokenserver.audit import checkpoint
from tokenserver.audit.chain import Chains
from tokenserver.audit.checkpoint import Sealer
from tokenserver.audit.retention import Retention
from tokenserver.audit.trail import Trail
from tokenserver.auth.registration import Registration
from tokenserver.clients.initial_access_token import InitialAccessTokens
from tokenserver.clients.keys import ClientKeys
from tokenserver.clients.registry import Clients
from tokenserver.config import Settings
from tokenserver.errors import ConfigurationError, Unavailable
from tokenserver.identity.breached_passwords import BreachedPasswords
from tokenserver.identity.hash_places import HashPlaces, shared_folder
from tokenserver.identity.known_devices import KnownDevices
from tokenserver.identity.letters import Letters
from tokenserver.identity.login import Login
from tokenserver.identity.notices import Notices
from tokenserver.identity.own_account import OwnAccount
from tokenserver.identity.passwords import Passwords
from tokenserver.identity.people import People
from tokenserver.identity.recovery import Recovery
from tokenserver.identity.second_factors.authenticator_app import SEALING, AuthenticatorApps
from tokenserver.identity.second_factors.challenges import Challenges
from tokenserver.identity.second_factors.factors import SecondFactors
from tokenserver.identity.second_factors.passkeys import Passkeys
from tokenserver.identity.second_factors.relying_party import RelyingParty
from tokenserver.identity.throttle import Throttle
from tokenserver.mail.delivery import Delivery
from tokenserver.mail.postbox import Postbox
from tokenserver.oauth import scope
from tokenserver.oauth.active_token import ActiveTokens
from tokenserver.oauth.admission import Admission
from tokenserver.oauth.authorization import Authorization
from tokenserver.oauth.authorization_request import AuthorizationRequests
from tokenserver.oauth.backchannel_logout import BackchannelLogout
from tokenserver.oauth.browser_session import BrowserSessions
from tokenserver.oauth.client_authentication import ClientAuthentication
from tokenserver.oauth.client_limits import ClientLimits
from tokenserver.oauth.consent import Consents
from tokenserver.oauth.device import Devices
from tokenserver.oauth.endpoints import path_of
from tokenserver.oauth.grants.request import Collaborators
from tokenserver.oauth.interaction import Interactions
from tokenserver.oauth.issuing import Issuing
from tokenserver.oauth.pipeline import Pipeline
from tokenserver.oauth.request_object import RequestObjects
from tokenserver.oauth.subject import Subjects
from tokenserver.storage.clock import NODE_SKEW_SECONDS, Clock
from tokenserver.storage.feed import Entry, Feed, Kind
from tokenserver.storage.redis import RedisStore
from tokenserver.storage.sql import Database
from tokenserver.tokens.access_token import sign_jwt
from tokenserver.tokens.authorization_code import AuthorizationCodes
from tokenserver.tokens.checkpoints import Checkpoints
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.tokens.refresh_token import RefreshTokens
from tokenserver.tokens.revocation import Revocation
from tokenserver.tokens.revocation_list import SignedList
from tokenserver.tokens.sessions import Sessions
from tokenserver.verify.access_token import Verifier
from tokenserver.web.cookies import Cookies
from tokenserver.web.fetch import Fetcher
from tokenserver.web.pagination import Pages
from tokenserver.web.rate_limit import RateLimits


@dataclass(frozen=True)
class Rooms:
    settings: Settings
    database: Database
    store: RedisStore
    clock: Clock
    keys: KeyRing
    feed: Feed
    people: People
    passwords: Passwords
    notices: Notices
    own_account: OwnAccount
    registration: Registration
    recovery: Recovery
    mail: Delivery
    rights: Rights
    clients: Clients
    initial_access_tokens: InitialAccessTokens
    client_keys: ClientKeys
    client_authentication: ClientAuthentication
    client_limits: ClientLimits
    fetcher: Fetcher
    sessions: Sessions
    codes: AuthorizationCodes
    consents: Consents
    refresh_tokens: RefreshTokens
    checkpoints: Checkpoints
    login: Login
    known_devices: KnownDevices
    second_factors: SecondFactors
    challenges: Challenges
    passkeys: Passkeys
    limits: RateLimits
    pages: Pages
    trail: Trail
    sealer: Sealer
    retention: Retention
    admission: Admission
    active_tokens: ActiveTokens
    revocation_list: SignedList
    cookies: Cookies
    browser_sessions: BrowserSessions
    interactions: Interactions
    authorization_requests: AuthorizationRequests
    authorization: Authorization
    backchannel_logout: BackchannelLogout
    collaborators: Collaborators
    pipeline: Pipeline

    @classmethod
    def furnish(cls, app: Flask, settings: Settings) -> "Rooms":
        database = Database.of(app, settings)
        database.info[Chains] = Chains()
        store = RedisStore(settings.redis_connection_url)
        keys = KeyRing(
            settings.keys_dir, jwks_max_age=settings.jwks_max_age, token_lifetime=settings.access_token_ttl
        )
        feed = Feed(database, store, settings.access_token_ttl)
        feed.subscribe(_follow(keys), lambda _entries: None)
        revocation = Revocation(feed)
        limits = RateLimits(store, enabled=settings.rate_limits)
        # One core is left to what needs no hash.
        most_hashes = max(1, (os.cpu_count() or 1) - 1)
        passwords = Passwords(
            slots=max(1, min(most_hashes, (os.cpu_count() or 1) // settings.workers)),
            queue=settings.threads // 2,
            places=HashPlaces(shared_folder(), most_hashes),
            is_breached=BreachedPasswords(settings, slots=settings.threads // 2).knows,
        )
        postbox = Postbox(settings)
        notices = Notices(postbox)
        people = People(feed, passwords, notices)
        sealer = Sealer(
            database,
            lambda claims: sign_jwt(keys.signer(settings.signing_alg), checkpoint.TYP, claims),
            lambda: keys.signer(settings.signing_alg).kid,
            settings.issuer,
        )
        trail = Trail(feed, keep_allowed=settings.audit_access == "all")
        known_devices = KnownDevices(database, notices)
        login = Login(feed, people, passwords, Throttle(limits, settings), known_devices, trail)
        apps = AuthenticatorApps(database, lambda: keys.secrets(SEALING))
        second_factors = SecondFactors(database, apps, limits, trail, notices)
        challenges = Challenges(database, lambda: keys.secrets("challenge"))
        passkeys = Passkeys(database, RelyingParty(settings.issuer), challenges, trail, notices)
        rights = Rights(feed)
        clients = Clients(feed, scope.KNOWN, lambda: keys.secrets("client_secret"), keys.ensure)
        fetcher = Fetcher(settings)
        # Fetching never holds more than half of the threads.
        client_keys = ClientKeys(fetcher, slots=settings.threads // 2)
        client_limits = ClientLimits(limits, settings)
        client_authentication = ClientAuthentication(
            clients,
            client_keys,
            database,
            client_limits,
            issuer=settings.issuer,
            token_endpoint=settings.issuer + path_of("token_endpoint"),
        )
        sessions = Sessions(feed, lifetime=settings.refresh_token_ttl, idle_lifetime=settings.refresh_idle_ttl)
        codes = AuthorizationCodes(feed, sessions)
        consents = Consents(feed, sessions)
        refresh_tokens = RefreshTokens(feed, lambda: keys.secrets("refresh_token"), settings.refresh_grace)
        subjects = Subjects(database)
        issuing = Issuing(settings, keys, people, subjects, client_keys)
        verifier, any_audience = (
            Verifier(
                issuer=settings.issuer,
                audience=settings.audience,
                keys=keys,
                leeway=NODE_SKEW_SECONDS,
                any_audience=every,
            )
            for every in (False, True)
        )
        active_tokens = ActiveTokens(
            verifier=verifier,
            any_audience=any_audience,
            revocation=revocation,
            clients=clients,
            people=people,
            rights=rights,
            subjects=subjects,
        )
        collaborators = Collaborators(
            feed=feed,
            people=people,
            login=login,
            second_factors=second_factors,
            rights=rights,
            sessions=sessions,
            codes=codes,
            refresh_tokens=refresh_tokens,
            revocation=revocation,
            subjects=subjects,
            issuing=issuing,
            trail=trail,
            devices=Devices(feed, limits, settings),
            active_tokens=active_tokens,
        )
        return cls(
            settings=settings,
            database=database,
            store=store,
            clock=Clock.of(database, store),
            keys=keys,
            feed=feed,
            people=people,
            passwords=passwords,
            notices=notices,
            own_account=OwnAccount(feed, people, passwords, login, sessions),
            registration=Registration(settings, feed, people, rights, limits, notices),
            recovery=Recovery(
                feed=feed,
                people=people,
                passwords=passwords,
                sessions=sessions,
                postbox=postbox,
                limits=limits,
                login=login,
            ),
            mail=Delivery(settings, database, limits, Letters(settings).write),
            rights=rights,
            clients=clients,
            initial_access_tokens=InitialAccessTokens(database),
            client_keys=client_keys,
            client_authentication=client_authentication,
            fetcher=fetcher,
            sessions=sessions,
            codes=codes,
            consents=consents,
            refresh_tokens=refresh_tokens,
            checkpoints=Checkpoints(feed, sessions),
            login=login,
            known_devices=known_devices,
            second_factors=second_factors,
            challenges=challenges,
            passkeys=passkeys,
            limits=limits,
            pages=Pages(lambda: keys.secrets("cursor")),
            trail=trail,
            sealer=sealer,
            retention=Retention(database, sealer),
            admission=Admission(feed, active_tokens, trail),
            active_tokens=active_tokens,
            revocation_list=SignedList(
                feed=feed,
                revocation=revocation,
                signer=lambda: keys.signer(settings.signing_alg),
                issuer=settings.issuer,
                uri=settings.issuer + path_of("revocation_list_uri"),
            ),
            cookies=Cookies(settings.issuer),
            browser_sessions=BrowserSessions(feed, people, sessions, revocation, settings),
            interactions=Interactions(feed, limits, settings),
            authorization_requests=AuthorizationRequests(
                clients=clients,
                request_objects=RequestObjects(client_keys, fetcher, settings.issuer),
                issuing=issuing,
                keys=keys,
                issuer=settings.issuer,
            ),
            authorization=Authorization(
                feed=feed,
                rights=rights,
                sessions=sessions,
                consents=consents,
                codes=codes,
                issuing=issuing,
                subjects=subjects,
                trail=trail,
                second_factors=second_factors,
            ),
            backchannel_logout=BackchannelLogout(settings, feed, keys, clients, subjects, fetcher),
            collaborators=collaborators,
            client_limits=client_limits,
            pipeline=Pipeline(client_authentication, collaborators, client_limits),
        )

    def ensure_keys(self) -> None:
        # OpenID Connect Core section 15.1: ID tokens can always be signed by RS256, whatever the default is.
        for alg in dict.fromkeys((self.settings.signing_alg, "RS256")):
            self.keys.ensure(alg)


def _follow(keys: KeyRing) -> Callable[[Entry], None]:
    """A key that was thrown away in an emergency is gone in every process by its next request. Raises Unavailable
    while nobody can tell which keys are left."""

    def apply(entry: Entry) -> None:
        if entry.kind is Kind.KEYS_CHANGED:
            try:
                keys.reload_if_changed()
            except ConfigurationError as error:
                raise Unavailable(private=str(error)) from error

    return apply
