"""A token fits into a header: past 4 KiB the roles are left out, which the token says and introspection mends."""

from uuid import UUID

import pytest
from sqlalchemy import insert

from tests.answers import granted
from tests.conftest import PASSWORD, bearer
from tests.rfc.test_rfc9068 import part
from tokenserver.access.models import Role, RoleAssignment, RolePermission
from tokenserver.app import rooms_of
from tokenserver.audit import usage
from tokenserver.audit.usage import Measure
from tokenserver.storage.feed import Kind
from tokenserver.storage.sql import new_id, utc_now

FORM = {"grant_type": "password", "username": "ann", "password": PASSWORD}


def give_roles(rooms, user_id, count, permission="posts:create"):
    """Straight into the tables."""
    ids = [new_id() for _ in range(count)]

    def give(tx, change):
        now = utc_now()
        names = [f"role-{i:05}" for i in range(count)]
        rows = zip(ids, names, strict=True)
        tx.execute(
            insert(Role),
            [
                {"id": i, "name": n, "name_key": n, "description": "", "builtin": False, "created_at": now}
                for i, n in rows
            ],
        )
        tx.execute(insert(RolePermission), [{"role_id": i, "permission": permission} for i in ids])
        user = UUID(user_id)
        tx.execute(
            insert(RoleAssignment),
            [{"user_id": user, "role_id": i, "granted_by": "test", "granted_at": now} for i in ids],
        )
        change.note(Kind.USER_CHANGED, user_id)

    rooms.feed.change(give)


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_nine_thousand_roles(apps, api_of, alg, tmp_path):
    app = apps(signing_alg=alg, keys_dir=tmp_path / "keys")
    api, rooms = api_of(app), rooms_of(app)
    rooms.keys.ensure(alg)
    user = api.register()
    give_roles(rooms, user["id"], 9000, "logs:read")
    row, secret = rooms.clients.create(
        client_id="backend",
        client_name="",
        grant_types=["password", "refresh_token"],
        scope=["openid", "logs:read", "posts:create"],
    )
    tokens = granted(api.token((row.client_id, secret), **FORM))
    assert len(tokens["access_token"]) <= 4096
    claims = part(tokens["access_token"], 1)
    assert (claims["roles"], claims["roles_omitted"]) == ([], True)
    # What the token covers is not left out, and what decides is in the server.
    assert "logs:read" in claims["scope"].split()
    assert granted(api.http.get("/admin/logs", headers=bearer(tokens["access_token"])))["items"]
    introspected = granted(api.introspect((row.client_id, secret), tokens["access_token"]))
    assert len(introspected["roles"]) == 9001
    assert len(granted(api.me(tokens["access_token"]))["roles"]) == 9001
    refreshed = granted(
        api.token((row.client_id, secret), grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    )
    assert part(refreshed["access_token"], 1)["roles_omitted"] is True
    rooms.trail.drain_all()
    counts = rooms.database.read(lambda tx: usage.totals(tx, "1h"))
    assert counts[Measure.ROLES_OMITTED, "backend", ""] == 2


def test_a_few_roles_stay_in_the_token(api, rooms):
    user = api.register()
    give_roles(rooms, user["id"], 20)
    claims = part(api.login()["access_token"], 1)
    assert len(claims["roles"]) == 21
    assert "roles_omitted" not in claims


@pytest.mark.parametrize("count", [100, 140, 150, 160, 170, 200])
def test_around_the_limit_no_token_is_longer(api, rooms, count):
    user = api.register()
    give_roles(rooms, user["id"], count)
    token = api.login()["access_token"]
    claims = part(token, 1)
    assert len(token) <= 4096
    assert len(claims["roles"]) == (0 if claims.get("roles_omitted") else count + 1)
    assert ("roles_omitted" in claims) == (count >= 170)
