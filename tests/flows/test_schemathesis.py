"""The API against its own description: schemathesis makes requests that fit it and others that don't, alone and in
chains, and judges every answer by it. Both databases get whatever is at the edge of what a schema allows; most of
what is made by chance is for PostgreSQL, which refuses what SQLite takes.

`TOKENSERVER_TEST_FUZZ_SECONDS=1800` goes on for so long, on every database; without it there is one bounded round.
"""

import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.transport.wsgi import WSGITransport
from sqlalchemy import select

from tests.conftest import ADMIN_PASSWORD, Api, Apps, Databases, bearer
from tokenserver import first_start
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.access.permissions import ADMIN, PERMISSIONS
from tokenserver.app import rooms_of
from tokenserver.identity.models import User
from tokenserver.storage.feed import Change, Kind
from tokenserver.storage.sql import Transaction, utc_now

SECONDS = int(os.environ.get("TOKENSERVER_TEST_FUZZ_SECONDS", "0"))
OAUTH = {"include-path-regex": "^/oauth/"}
# What a request may get that fits its schema: no schema tells a weak password, a taken name, a cursor of another
# list. Never 400, 413 or 415.
ACCEPTED = ["2xx", "401", "403", "404", "409", "412", "422"]
REJECTED = ["400", "401", "403", "404", "405", "409", "412", "413", "415", "422"]

# Hypothesis shows what it made when it fails, which may be long.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning")


def config(backend: str) -> schemathesis.Config:
    bounds = {"max-time": SECONDS} if SECONDS else {}
    alone, in_chains = (5, 10) if backend == "sqlite" and not SECONDS else (15, 40)
    return schemathesis.Config.from_dict(
        bounds
        | {
            "seed": 1,
            "continue-on-failure": True,
            "output": {"sanitization": {"enabled": False}},
            "generation": {
                "max-examples": alone,
                "deterministic": not SECONDS,
                "database": "none",
                "allow-x00": False,  # refused everywhere, as tests/hostile shows; no schema can say so
                # The right ones come from `Caller`.
                "with-security-parameters": False,
            },
            "phases": {"stateful": {"generation": {"max-examples": in_chains}}},
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REJECTED},
            },
            "operations": [
                # RFC 6749 answers 400 to whatever is wrong with a form that is well formed.
                OAUTH | {"checks": {"positive_data_acceptance": {"enabled": False}}},
                # `DELETE /roles/{role}` takes it too, to say that there is no such role.
                {
                    "include-path": "/roles/verify",
                    "checks": {"allow_header_conformance": {"enabled": False}},
                },
                # `DELETE` ends those that there are; the list of them is there as before.
                {
                    "include-path": "/users/{user_id}/sessions",
                    "checks": {"use_after_free": {"enabled": False}},
                },
            ],
        }
    )


@pytest.fixture
def api(databases: Databases, backend: str, redis_url: str, tmp_path: Path) -> Iterator[Api]:
    # A ring of its own, since keys are rotated; nothing is limited, so that every request is judged by itself.
    settings = databases.settings(
        databases.fresh(backend), redis_url=redis_url, keys_dir=tmp_path, signing_alg="EdDSA", rate_limits=False
    )
    apps = Apps(settings)
    app = apps()
    list(first_start.prepare(rooms_of(app)))
    yield Api(app.test_client())
    apps.close()


class Caller:
    """The application as the admin asks it, or below /oauth/ a client. What a request takes from them, by signing
    them out, disabling them or changing their rights, is given back before the next one."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._app = api.http.application
        self._rooms = rooms_of(self._app)
        self._token = ""
        self._client = ("", "")
        self._is_sure = False
        self._versions = 0

    def credentials(self, path: str) -> dict[str, str]:
        if not self._is_sure:
            self._make_sure()
        if path.startswith("/oauth/"):
            return {"Authorization": "Basic " + b64encode(":".join(self._client).encode()).decode()}
        return bearer(self._token)

    def _make_sure(self) -> None:
        me = self._api.me(self._token)
        if me.status_code != 200 or set(me.json["permissions"]) != set(PERMISSIONS):
            self._rooms.feed.change(_restore)
            self._token = self._api.login("admin", ADMIN_PASSWORD)["access_token"]
        if self._api.introspect(self._client, "x").status_code != 200:
            grants = ["client_credentials", "password", "refresh_token"]
            row, secret = self._rooms.clients.create(client_name="A back end", grant_types=grants)
            self._client = row.client_id, str(secret)
        self._is_sure = True

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if "HTTP_IF_MATCH" in environ:
            # A made-up version is never the right one. Every other one is, so that what is behind it is reached.
            self._versions += 1
            if self._versions % 2:
                environ["HTTP_IF_MATCH"] = "*"
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            self._is_sure = False
        return self._app(environ, start_response)


def _restore(tx: Transaction, change: Change) -> None:
    user = tx.scalars(select(User).where(User.username == "admin")).one()
    user.status = "active"
    role = tx.scalars(select(Role).where(Role.name == ADMIN)).one()
    held = {each.permission for each in role.permissions}
    tx.add_all(RolePermission(role_id=role.id, permission=name) for name in PERMISSIONS if name not in held)
    if tx.get(RoleAssignment, (user.id, role.id)) is None:
        tx.add(RoleAssignment(user_id=user.id, role_id=role.id, granted_by="cli", granted_at=utc_now()))
    change.note(Kind.ROLES_CHANGED, role.id)
    change.note(Kind.USER_CHANGED, user.id)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """schemathesis 4.32 hands the options of sockets to applications too, when it probes them without a token."""
    send = WSGITransport.send

    def without_sockets(self: Any, case: Any, **options: Any) -> Any:
        sockets = {"max_redirects", "verify", "cert", "proxies"}
        return send(self, case, **{name: value for name, value in options.items() if name not in sockets})

    monkeypatch.setattr(WSGITransport, "send", without_sockets)


@pytest.mark.usefixtures("transport")
def test_every_answer_is_as_described(api: Api, backend: str):
    caller = Caller(api)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", caller, config=config(backend))

    @schema.auth(refresh_interval=None)
    class Signed:
        def get(self, case: Any, context: Any) -> dict[str, str]:
            return caller.credentials(case.path)

        def set(self, case: Any, data: dict[str, str], context: Any) -> None:
            case.headers.update(data)

    faults: list[str] = []
    asked: set[str] = set()
    for event in from_schema(schema).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            faults.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.ScenarioFinished):
            faults += _faults(event.recorder)
            asked |= {case.value.operation.label for case in event.recorder.cases.values()}
    assert not faults, "\n\n".join(dict.fromkeys(faults))
    # All but the description itself, which it knows already.
    described = {f"{method.upper()} {path}" for path, item in schema.raw_schema["paths"].items() for method in item}
    assert asked == described - {"GET /openapi.json"}


def _faults(recorder: ScenarioRecorder) -> Iterator[str]:
    """Each with the request that shows it."""
    for checks in recorder.checks.values():
        for check in checks:
            if check.failure_info is not None:
                yield f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
