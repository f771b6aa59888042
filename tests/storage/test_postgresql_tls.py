"""PostgreSQL with TLS and client certificates (`sslmode=verify-full`): the server works over it, and refuses in one
line, without telling secrets, what it must not trust."""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import PASSWORD
from tests.live_server import COMMAND, free_port
from tests.postgres_servers import Certificates, tls_postgres_server
from tokenserver import first_start
from tokenserver.app import rooms_of
from tokenserver.background import Background
from tokenserver.cli import program
from tokenserver.cli.command import run

SECRET = "hunter2"
INITIALISE = Path(__file__).parents[2] / "docs/deploy/postgresql/initialise.sql"


@pytest.fixture(scope="module")
def server_and_certificates():
    with tls_postgres_server() as both:
        # What the documents tell operators to run; psql would change the database at its own word.
        first, second = INITIALISE.read_text().split("\\connect tokenserver\n")
        for database, script in (("postgres", first), ("tokenserver", second)):
            statements = re.sub(r"--.*", "", script).split(";")
            both[0].sql(*(each for each in statements if each.strip()), database=database)
        yield both


@pytest.fixture(scope="module")
def server(server_and_certificates):
    return server_and_certificates[0]


@pytest.fixture(scope="module")
def certificates(server_and_certificates):
    return server_and_certificates[1]


@pytest.fixture
def url(server, certificates):
    """Of the user that serves, with a password that nobody asks for."""
    return url_of("tokenserver", server, certificates)


def url_of(user, server, certificates):
    base = f"postgresql://{user}:{SECRET}@localhost:{server.port}/tokenserver"
    return f"{base}?{certificates.query(user)}"


@pytest.fixture
def settings(databases, url, redis_url):
    return databases.settings(url, redis_url=redis_url)


def test_the_server_works_over_it(apps, server, certificates, api_of):
    """As a user that may read and write rows alone; the one that migrates is another."""
    owner = rooms_of(apps(database_url=url_of("tokenserver_owner", server, certificates)))
    list(first_start.prepare(owner))
    app = apps()
    api, rooms = api_of(app), rooms_of(app)
    ssl = "SELECT version, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    version, user = rooms.database.read(lambda tx: tx.execute(sa.text(ssl)).one())
    assert version.startswith("TLSv1.")
    assert user == "tokenserver"
    tokens = api.signed_in()
    assert api.refresh(tokens["refresh_token"]).status_code == 200
    assert api.me(tokens["access_token"]).status_code == 200
    assert api.http.post("/auth/login", json={"login": "ann", "password": PASSWORD}).status_code == 200
    background = Background(rooms)
    for chore in (
        background._drain,
        background._reconcile,
        background._seal,
        background._purge,
        background._forget,
    ):
        chore()
    for statement in ("CREATE TABLE more (n int)", "DROP TABLE users", "ALTER TABLE users ADD COLUMN c int"):
        with pytest.raises(sa.exc.ProgrammingError):
            rooms.database.write(lambda tx, sql=statement: tx.execute(sa.text(sql)))


def other_authority(url, _certificates, folder):
    """It would take any server for ours that this authority vouches for."""
    return with_value(url, "sslrootcert", Certificates(folder, "Another authority").ca_file)


def other_host(url, _certificates, _folder):
    """The certificate is for localhost."""
    return url.replace("@localhost:", "@127.0.0.1:")


def no_client_certificate(url, _certificates, folder):
    nothing = folder / "nothing"
    return with_value(with_value(url, "sslcert", nothing), "sslkey", nothing)


def certificate_of_another_user(url, certificates, _folder):
    certificate, key = certificates.issue("somebody")
    return with_value(with_value(url, "sslcert", certificate), "sslkey", key)


def certificate_of_another_authority(url, _certificates, folder):
    certificate, key = Certificates(folder, "Another authority").issue("tokenserver")
    return with_value(with_value(url, "sslcert", certificate), "sslkey", key)


def no_tls(url, _certificates, _folder):
    return url.partition("?")[0] + "?sslmode=disable"


def no_such_root(url, _certificates, folder):
    return with_value(url, "sslrootcert", folder / "none.crt")


def with_value(url, name, value):
    before, _, query = url.partition("?")
    parts = [part if not part.startswith(f"{name}=") else f"{name}={value}" for part in query.split("&")]
    return f"{before}?{'&'.join(parts)}"


REFUSALS = {
    other_authority: "certificate verify failed",
    other_host: 'does not match host name "127.0.0.1"',
    no_client_certificate: "connection requires a valid client certificate",
    certificate_of_another_user: 'certificate authentication failed for user "tokenserver"',
    certificate_of_another_authority: "unknown ca",
    no_tls: "no encryption",
    no_such_root: "does not exist",
}


@pytest.fixture
def environment(redis_url, tmp_path, monkeypatch):
    """Of commands in this process, and in others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENSERVER_REDIS_URL", redis_url)
    monkeypatch.setenv("TOKENSERVER_KEYS_DIR", str(tmp_path / "keys"))
    return monkeypatch


@pytest.mark.parametrize("change", REFUSALS)
def test_what_is_not_trusted_is_refused_in_one_line(change, url, certificates, tmp_path, environment, capsys):
    environment.setenv("TOKENSERVER_DATABASE_URL", change(url, certificates, Path(tempfile.mkdtemp(dir=tmp_path))))
    assert run(program, ["doctor"]) == 1
    assert run(program, ["init"]) == 1
    said = capsys.readouterr()
    (fault,) = [line for line in said.out.splitlines() if line.startswith("FAULT   database")]
    _, refused = said.err.splitlines()
    assert REFUSALS[change] in fault
    assert refused.startswith("tokenserver: the database is not available (")
    assert REFUSALS[change] in refused
    assert refused.endswith(": check TOKENSERVER_DATABASE_URL")
    assert SECRET not in said.out + said.err


def test_the_server_does_not_start_without_trust(url, certificates, tmp_path, environment):
    environment.setenv("TOKENSERVER_DATABASE_URL", other_authority(url, certificates, tmp_path))
    environment.setenv("TOKENSERVER_PORT", str(free_port()))
    done = subprocess.run([COMMAND, "serve"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    (refused,) = done.stderr.splitlines()
    assert "certificate verify failed" in refused
    assert SECRET not in done.stdout + refused
