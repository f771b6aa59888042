"""The server as the OpenID Foundation's conformance suite finds it, and one run of a module at a time."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.conftest import PASSWORD, Databases, _databases
from tests.listeners import Authority, authority, listen
from tests.oidc.suite import ISSUER, PERSON, Module, Provider, RelyingParty
from tests.redis_servers import Topology
from tokenserver.access.permissions import USER
from tokenserver.app import create_app
from tokenserver.identity.models import User
from tokenserver.tokens.key_ring import KeyRing
from tokenserver.tokens.models import AuthorizationCode, Session

__all__ = ["authority", "listen"]


@pytest.fixture(scope="session")
def ring(short_path: Path) -> Path:
    """Of these tests alone: their clients make the server create keys of every algorithm."""
    KeyRing(short_path / "oidc", jwks_max_age=300, token_lifetime=300).ensure("RS256")
    return short_path / "oidc"


@pytest.fixture(scope="module")
def provide(
    databases: Databases, redis_server: Topology, authority: Authority, ring: Path
) -> Iterator[Callable[..., Provider]]:
    """Makes servers with a person `ann`, of whom every standard claim is known."""
    made: list[Provider] = []

    def make(**options: Any) -> Provider:
        defaults = {
            "redis_url": redis_server.fresh_url(next(_databases)),
            "keys_dir": ring,
            "issuer": ISSUER,
            "client_registration": "open",
            "fetch_private": "127.0.0.0/8",
            "fetch_ca_file": str(authority.ca_file),
            "rate_limits": False,
        }
        provider = Provider(create_app(databases.settings(databases.fresh("postgresql"), **(defaults | options))))
        made.append(provider)
        rooms = provider.rooms
        ann = rooms.people.prepare(
            username="ann",
            email="ann@example.org",
            password=PASSWORD,
            name="Ann B. Example",
            claims=PERSON,
            email_verified=True,
        )
        rooms.database.write(lambda tx: rooms.people.add(tx, ann))
        rooms.feed.change(lambda tx, change: rooms.rights.assign(tx, change, ann.id, USER, granted_by="cli"))
        rooms.database.write(lambda tx: tx.execute(update(User).values(phone_number_verified=True)))
        return provider

    yield make
    for provider in made:
        provider.rooms.database.engine.dispose()
        provider.rooms.store.close()


@pytest.fixture(scope="module")
def provider(provide: Callable[..., Provider]) -> Provider:
    """One for all tests of a file, as for all modules of a plan."""
    return provide()


@pytest.fixture
def run(provider: Provider) -> Callable[..., Module]:
    """Starts a module: of a client, or of a new static one."""

    def start(client: RelyingParty | None = None, **plan: str) -> Module:
        return Module(provider, client or provider.client(), plan, "ann")

    return start


@pytest.fixture
def module(run: Callable[..., Module]) -> Module:
    """Of the Basic plan: code, client_secret_basic, the default response mode."""
    return run()


@pytest.fixture
def dynamic(provider: Provider, run: Callable[..., Module]) -> Iterator[Callable[..., Module]]:
    """Starts a module with a client that registers itself, and that is deleted in the end."""
    made: list[RelyingParty] = []

    def start(response_type: str = "code", **metadata: Any) -> Module:
        made.append(provider.register(response_type, **metadata))
        return run(made[-1], response_type=response_type)

    yield start
    for client in made:
        provider.unregister(client)


@pytest.fixture
def later(provider: Provider) -> Callable[[int], None]:
    """As if so many seconds had gone by since every sign-in, and since every code was issued and spent."""

    def move(seconds: int) -> None:
        step = timedelta(seconds=seconds)

        def write(tx: Any) -> None:
            for session in tx.scalars(select(Session)):
                session.authenticated_at -= step
            for code in tx.scalars(select(AuthorizationCode)):
                code.created_at -= step
                code.expires_at -= step
                code.used_at = code.used_at and code.used_at - step

        provider.rooms.database.write(write)

    return move
