"""PostgreSQL servers of a test's own: to be stopped, killed or left hanging, and with TLS and client certificates.

Those with TLS are Debian's, since the wheel's has none. It refuses to run as root: then another user runs it.
"""

import atexit
import datetime as dt
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil
import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PATIENCE = 30.0
# What is written here need not survive a power cut.
QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "shared_buffers": "16MB"}
HBA_PLAIN = "host all all 127.0.0.1/32 trust\n"
HBA_TLS = "hostssl all all 127.0.0.1/32 cert clientcert=verify-full\n"


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Programs:
    """`user`: who runs them when the tests run as root."""

    folder: Path
    user: str

    @classmethod
    def of_wheel(cls) -> "Programs":
        if "XDG_RUNTIME_DIR" not in os.environ:  # where pgserver keeps a lock
            os.environ["XDG_RUNTIME_DIR"] = folder = tempfile.mkdtemp(prefix="ts-run-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        from pgserver._commands import POSTGRES_BIN_PATH
        from pgserver.utils import ensure_prefix_permissions, ensure_user_exists

        if os.geteuid() == 0:
            ensure_user_exists("pgserver")
            ensure_prefix_permissions(POSTGRES_BIN_PATH)
        return cls(POSTGRES_BIN_PATH, "pgserver")

    @classmethod
    def of_debian(cls) -> "Programs":
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        if not found:
            unavailable("PostgreSQL with TLS is not tested: there is no /usr/lib/postgresql/*/bin/postgres")
        return cls(found[-1].parent, "postgres")


@dataclass
class PostgresServer:
    """Listens on 127.0.0.1 alone. `query`: what a URL of it needs."""

    programs: Programs
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    hba: str = HBA_PLAIN
    host: str = "127.0.0.1"
    query: str = ""
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@{self.host}:{self.port}/{database}{self.query and '?' + self.query}"

    def initialize(self) -> None:
        self._own()
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
        self._run("initdb", "-D", str(self.data), *options)

    def start(self) -> None:
        """Waits until it answers."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = int(probe.getsockname()[1])
        self.data.joinpath("pg_hba.conf").write_text(self.hba)
        settings = QUICK | {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(self.port)}
        options = [word for name, value in (settings | self.settings).items() for word in ("-c", f"{name}={value}")]
        command = [str(self.programs.folder / "postgres"), "-D", str(self.data), *options]
        with self.folder.joinpath("log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._user())
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                psycopg2.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg2.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"PostgreSQL did not start:\n{self.folder.joinpath('log').read_text()[-4000:]}")
                time.sleep(0.05)

    def sql(self, *statements: str, database: str = "postgres") -> None:
        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()

    def processes(self) -> list[psutil.Process]:
        """The postmaster first."""
        if self.process is None or self.process.poll() is not None:
            return []
        postmaster = psutil.Process(self.process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def hang(self) -> None:
        """Every process of it stands still; the kernel goes on accepting what is sent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to every process at once."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)  # "fast": whoever is connected is sent away
            try:
                self.process.wait(PATIENCE)
            finally:
                self.kill()

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs.folder / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, **self._user())
        assert done.returncode == 0, done.stderr

    def _user(self) -> dict[str, int]:
        if os.geteuid():
            return {}
        entry = pwd.getpwnam(self.programs.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid}

    def _own(self) -> None:
        if ids := self._user():
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, ids["user"], ids["group"], follow_symlinks=False)


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Without TLS. `settings`: of postgresql.conf."""
    with _running(PostgresServer(Programs.of_wheel(), Path(tempfile.mkdtemp(prefix="ts-pg-")), settings)) as server:
        yield server


@contextmanager
def tls_postgres_server(**settings: str) -> Iterator[tuple[PostgresServer, "Certificates"]]:
    """Takes connections with TLS and a client certificate in the name of the database user alone."""
    programs = Programs.of_debian()
    certificates = Certificates(Path(tempfile.mkdtemp(prefix="ts-ca-")))
    folder = Path(tempfile.mkdtemp(prefix="ts-pg-"))
    certificate, key = certificates.issue("localhost", server=True, folder=folder)
    tls = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    tls["ssl_ca_file"] = str(shutil.copy(certificates.ca_file, folder / "ca.crt"))
    server = PostgresServer(programs, folder, tls | settings, HBA_TLS, "localhost", certificates.query("postgres"))
    try:
        with _running(server):
            yield server, certificates
    finally:
        shutil.rmtree(certificates.folder, ignore_errors=True)


@contextmanager
def _running(server: PostgresServer) -> Iterator[PostgresServer]:
    try:
        server.initialize()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


class Certificates:
    """An authority, and what it has issued, in a folder of its own; names as `cockroach cert` gives them."""

    def __init__(self, folder: Path, name: str = "Authority of the tests") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.ca_file = folder / "ca.crt"
        ca = _builder(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca_file.write_bytes(ca.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, server: bool = False, folder: Path | None = None) -> tuple[Path, Path]:
        """Files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _builder(_name(name), self._name, key).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = (folder or self.folder) / ("node" if server else f"client.{name}")
        files = stem.with_name(stem.name + ".crt"), stem.with_name(stem.name + ".key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].touch(mode=0o600)
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def query(self, user: str) -> str:
        """Of a URL of somebody with a certificate."""
        certificate, key = self.issue(user)
        return f"sslmode=verify-full&sslrootcert={self.ca_file}&sslcert={certificate}&sslkey={key}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
