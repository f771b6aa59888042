"""E44: SQL is restored from a backup, and what was ended since then lives again, until everything is revoked.

docs/backup.md tells operators the same in words; Redis keeps what it has, or is empty.
"""

import importlib.util
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.answers import granted
from tests.cli.conftest import Deployment
from tests.conftest import ADMIN_PASSWORD, PASSWORD, bearer
from tests.postgres_servers import Programs
from tests.redis_access import raw_redis
from tokenserver.app import rooms_of

# Not imported: that looks for a folder of its own.
PROGRAMS = Path(importlib.util.find_spec("pgserver").origin).parent / "pginstall" / "bin"
NEW_PASSWORD = "another horse 8 battery"


@pytest.fixture
def settings(settings, backend):
    if backend == "external":
        pytest.skip("CockroachDB has BACKUP and RESTORE of its own")
    return replace(settings, refresh_grace=0)  # a rotated token is dead at once


@pytest.fixture
def command(settings, tmp_path):
    """Runs `tokenserver` on the same stores."""
    variables = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "KEYS_DIR": str(settings.keys_dir),
    }
    return Deployment(tmp_path, variables).run


class Backup:
    """Of the database of a test, by the means that docs/backup.md names."""

    def __init__(self, settings, command, folder):
        self.url = settings.database_url
        self.command = command
        self.file = folder / "backup"

    @property
    def _is_sqlite(self):
        return self.url.startswith("sqlite")

    @property
    def _programs(self):
        # Those of the wheel know no TLS.
        return Programs.of_debian().folder if "sslmode" in self.url else PROGRAMS

    def make(self):
        if self._is_sqlite:
            assert self.command("db", "backup", str(self.file)).code == 0
        else:
            subprocess.run([self._programs / "pg_dump", "-Fc", "-f", self.file, self.url], check=True)

    def restore(self):
        if self._is_sqlite:
            path = Path(self.url.removeprefix("sqlite:///"))
            for leftover in (f"{path}-wal", f"{path}-shm"):
                Path(leftover).unlink(missing_ok=True)
            shutil.copyfile(self.file, path)
        else:
            options = ["--clean", "--if-exists", "--single-transaction", "-d", self.url]
            subprocess.run([self._programs / "pg_restore", *options, self.file], check=True)


@pytest.fixture
def backup(settings, command, tmp_path):
    return Backup(settings, command, tmp_path)


def rotated(api, token):
    return granted(api.refresh(token))["refresh_token"]


def story(api, backup):
    """What happens before and after the backup. Of each: an access token and a refresh token, or None."""
    rooms = rooms_of(api.http.application)
    admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    kept, spent, out = api.signed_in("ann"), api.login("ann"), api.login("ann")
    bob, carl = api.signed_in("bob"), api.signed_in("carl")
    carl_at_home = api.login("carl")
    job = {"client_name": "job", "grant_types": ["client_credentials"], "scope": "posts:create"}
    created = granted(api.http.post("/clients", json=job, headers=admin), 201)
    credentials = (created["client_id"], created["client_secret"])
    of_job = granted(api.token(credentials, grant_type="client_credentials"))
    rooms.checkpoints.drain()
    backup.make()

    newer = rotated(api, kept["refresh_token"])
    rotated(api, spent["refresh_token"])
    granted(api.http.post("/auth/logout", headers=bearer(out["access_token"])), 204)
    bob_id = api.me(bob["access_token"]).json["id"]
    granted(api.http.put(f"/users/{bob_id}/status", json={"status": "disabled"}, headers=admin))
    change = {"password": NEW_PASSWORD, "current_password": PASSWORD}
    granted(api.http.put("/users/me", json=change, headers=bearer(carl_at_home["access_token"])))
    granted(api.http.delete(f"/clients/{created['client_id']}", headers=admin), 204)
    fresh, dave = api.login("ann"), api.signed_in("dave")
    rooms.checkpoints.drain()
    return {
        "rotated": (None, newer),
        "consumed": (None, spent["refresh_token"]),
        "logged out": (out["access_token"], out["refresh_token"]),
        "disabled": (bob["access_token"], bob["refresh_token"]),
        "password changed": (carl["access_token"], carl["refresh_token"]),
        "client deleted": (of_job["access_token"], None),
        "signed in since": (fresh["access_token"], fresh["refresh_token"]),
        "registered since": (dave["access_token"], dave["refresh_token"]),
    }


def alive(api, tokens):
    """In the order of `story`. An access token that is accepted, a refresh token that is honoured."""
    found = set()
    for name, (access, refresh) in tokens.items():
        # A client's own token has no user whose data it could read, but it may look at what everybody may.
        if access and api.http.get("/posts", headers=bearer(access)).status_code == 200:
            found.add(f"{name}: access")
        if refresh and api.refresh(refresh).status_code == 200:
            found.add(f"{name}: refresh")
    return found


def restore(app, backup, *, empty_redis):
    rooms_of(app).database.engine.dispose()
    backup.restore()
    if empty_redis:
        raw_redis(rooms_of(app).store).flushdb()


@pytest.mark.parametrize("empty_redis", [False, True], ids=["redis kept", "redis emptied"])
def test_what_lives_after_a_restore(apps, api_of, backup, empty_redis):
    """Without the last step."""
    first = api_of(apps())
    tokens = story(first, backup)
    restore(first.http.application, backup, empty_redis=empty_redis)
    api = api_of(apps())
    access = {"logged out", "disabled", "password changed", "client deleted", "signed in since"}
    # SQL has the old checkpoint again: what was spent since the backup could be spent once more, if Redis forgot it
    # too. Families that began since the backup are known to Redis alone.
    refresh = {"rotated", "consumed", "logged out", "disabled", "password changed"}
    if not empty_redis:
        refresh = {"rotated", "signed in since"}
    expected = {f"{name}: access" for name in access} | {f"{name}: refresh" for name in refresh}
    assert alive(api, tokens) == expected
    # What people and admins changed is undone as well.
    assert api.login("carl", PASSWORD)
    assert api.login("bob", PASSWORD)


@pytest.mark.parametrize("empty_redis", [False, True], ids=["redis kept", "redis emptied"])
def test_nothing_lives_after_the_last_step(apps, api_of, backup, command, empty_redis):
    """`session revoke --all`: of all that was issued before, nothing is accepted; not by a process that ran on."""
    running = apps()
    tokens = story(api_of(running), backup)
    restore(running, backup, empty_redis=empty_redis)
    done = command("session", "revoke", "--all", "--json")
    # The admin's, three of ann, bob's, and two of carl.
    assert done.data == {"sessions": 7}
    assert command("audit", "verify").code == 0  # the log ends earlier, and goes on from there
    for app in (running, apps()):
        assert alive(api_of(app), tokens) == set()
    api = api_of(running)
    again = api.login("ann")
    assert api.me(again["access_token"]).status_code == 200
    assert api.refresh(again["refresh_token"]).status_code == 200
    assert command("session", "list", "--json").data[0]["username"] == "ann"


def test_a_backup_of_sqlite_is_whole_and_private(databases, tmp_path, redis_url):
    variables = {"DATABASE_URL": databases.fresh("sqlite"), "REDIS_URL": redis_url}
    variables["KEYS_DIR"] = str(databases.keys_dir)
    deployment = Deployment(tmp_path, variables)
    assert deployment.run("user", "create", "--username", "ann", "--email", "ann@example.org").code == 0
    file = tmp_path / "backup"
    done = deployment.run("db", "backup", str(file), "--json")
    assert done.data == {"file": str(file), "bytes": file.stat().st_size}
    assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT username FROM users WHERE username = 'ann'").fetchone() == ("ann",)
    assert deployment.refused("db", "backup", str(file)) == f"{file} is there already"
    assert deployment.refused("db", "backup", str(tmp_path / "no" / "folder")).endswith("No such file or directory")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup"]


def test_other_databases_have_tools_of_their_own(databases, tmp_path):
    deployment = Deployment(tmp_path, {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"})
    said = deployment.refused("db", "backup", str(tmp_path / "backup"))
    assert said == "this database is backed up by its own tools: docs/backup.md says how"
