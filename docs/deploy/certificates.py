"""Makes what docker-compose.yml needs for TLS and signing in between its services; needs the package cryptography.

    python certificates.py FOLDER [NAME …]

FOLDER has a subfolder for each service, where the service finds what is for it alone; NAMEs are further names of
the balancer. Redis, PostgreSQL and the balancer have an authority each, so that a certificate of one is a stranger
to the others. What is there, and good for another 30 days, stays: run it again to renew, then restart the services.
CockroachDB's certificates are made by `cockroach cert` (cockroachdb/certificates.sh).
"""

import datetime as dt
import hashlib
import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Users of the images.
TOKENSERVER: Final = 10001
REDIS = POSTGRES = 999
HAPROXY: Final = 99
ROOT: Final = 0

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 365
RENEWED_DAYS: Final = 30
LOCAL: Final = ("localhost", "127.0.0.1")
ACL_TEMPLATE: Final = Path(__file__).with_name("redis") / "users.acl.template"
# Where compose mounts the folder `server` in the nodes; they read `.env` from there.
MOUNTED: Final = Path("/etc/tokenserver")
PEM: Final = serialization.Encoding.PEM


class Certificate(NamedTuple):
    """`names`: of a server, the first as its common name too. A client has the one name that it signs in with."""

    folder: str
    file: str
    names: tuple[str, ...]
    owner: int
    is_client: bool = False
    with_key: bool = False  # in one file, as HAProxy wants it


def plan(public_names: Sequence[str]) -> dict[str, list[Certificate]]:
    """By authority."""
    return {
        "redis": [
            Certificate("redis", "server", ("redis", *LOCAL), REDIS),
            Certificate("redis", "health", ("health",), REDIS, is_client=True),
            Certificate("server", "redis-client", ("tokenserver",), TOKENSERVER, is_client=True),
        ],
        "postgresql": [
            Certificate("postgresql", "server", ("postgresql", *LOCAL), POSTGRES),
            Certificate("postgresql-client", "client", ("tokenserver",), TOKENSERVER, is_client=True),
            Certificate("postgresql-owner", "client", ("tokenserver_owner",), TOKENSERVER, is_client=True),
        ],
        "balancer": [Certificate("balancer", "server", (*public_names, *LOCAL), HAPROXY, with_key=True)],
    }


def make(root: Path, public_names: Sequence[str] = ()) -> list[str]:
    """What was made."""
    made = []
    for name, certificates in plan(public_names).items():
        authority = Authority(root / "authorities", name)
        made += authority.made
        for each in certificates:
            # The server's folder holds files of several authorities.
            ca_file = f"{name}-ca.crt" if each.folder == "server" else "ca.crt"
            write(root / each.folder / ca_file, authority.pem, each.owner, 0o444)
            if authority.renew(root / each.folder, each):
                made.append(f"{each.folder}/{each.file}")
    return made + make_redis_user(root) + make_superuser(root)


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        key_file, certificate_file = folder / f"{name}.key", folder / f"{name}.crt"
        self.made = []
        if not certificate_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority of {name}")])
            identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
            builder = (
                _builder(subject, subject, key, AUTHORITY_DAYS)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(signs_certificates=True), critical=True)
                .add_extension(identifier, critical=False)
            )
            # The key first: without its certificate the pair is made anew.
            write(key_file, _private(key), ROOT, 0o600)
            write(certificate_file, builder.sign(key, hashes.SHA256()).public_bytes(PEM), ROOT, 0o444)
            self.made = [f"authorities/{name}"]
        self.pem = certificate_file.read_bytes()
        self._certificate = x509.load_pem_x509_certificate(self.pem)
        loaded = serialization.load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            sys.exit(f"{key_file} is no key of ours")
        self._key = loaded

    def renew(self, folder: Path, wanted: Certificate) -> bool:
        file, key_file = folder / f"{wanted.file}.crt", folder / f"{wanted.file}.key"
        if file.exists() and self._is_good(x509.load_pem_x509_certificate(file.read_bytes()), wanted):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.names[0])])
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if wanted.is_client else ExtendedKeyUsageOID.SERVER_AUTH
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key, CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )
        if not wanted.is_client:
            builder = builder.add_extension(_alternative_names(wanted.names), critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)
        if wanted.with_key:
            write(file, pem + _private(key), wanted.owner, 0o400)
        else:
            write(key_file, _private(key), wanted.owner, 0o400)
            write(file, pem, wanted.owner, 0o444)
        return True

    def _is_good(self, found: x509.Certificate, wanted: Certificate) -> bool:
        try:
            found.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, ValueError):
            return False
        if found.not_valid_after_utc < dt.datetime.now(dt.UTC) + dt.timedelta(days=RENEWED_DAYS):
            return False
        if wanted.is_client:
            return True
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names == _alternative_names(wanted.names)


def make_redis_user(root: Path) -> list[str]:
    """Its password is in the nodes' `.env` alone; Redis has the digest, and what this version may send."""
    dotenv, acl_file = root / "server" / ".env", root / "redis" / "users.acl"
    made = []
    if not dotenv.exists():
        files = {
            "ssl_ca_certs": "redis-ca.crt",
            "ssl_certfile": "redis-client.crt",
            "ssl_keyfile": "redis-client.key",
        }
        query = urlencode({name: str(MOUNTED / file) for name, file in files.items()}, safe="/")
        url = f"rediss://tokenserver:{secrets.token_urlsafe(32)}@redis:6379/0?{query}"
        write(dotenv, f"TOKENSERVER_REDIS_URL={url}\n".encode(), TOKENSERVER, 0o400)
        made.append("server/.env")
    password = urlsplit(dotenv.read_text(encoding="utf-8").partition("=")[2].strip()).password or ""
    digest = hashlib.sha256(password.encode()).hexdigest()
    template = ACL_TEMPLATE.read_text(encoding="utf-8").replace("TOKENSERVER-SHA256", digest)
    # Redis takes no comments there. One Redis alone has neither replicas nor Sentinels.
    lines = [line for line in template.splitlines() if line.startswith(("user default", "user tokenserver"))]
    # For the health check, which can do nothing else.
    lines.append("user health on nopass resetkeys resetchannels -@all +ping")
    content = "\n".join([*lines, ""]).encode()
    if not acl_file.exists() or acl_file.read_bytes() != content:
        write(acl_file, content, REDIS, 0o400)
        made.append("redis/users.acl")
    return made


def make_superuser(root: Path) -> list[str]:
    """The image of PostgreSQL wants a password of its superuser, with whom nobody may sign in over the network."""
    file = root / "postgresql" / "superuser-password"
    if file.exists():
        return []
    write(file, secrets.token_urlsafe(32).encode(), POSTGRES, 0o400)
    return ["postgresql/superuser-password"]


def write(path: Path, content: bytes, owner: int, mode: int) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        if os.geteuid() == ROOT:
            os.fchown(file.fileno(), owner, owner)
    draft.replace(path)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: certificates.py FOLDER [NAME …]")
    for what in make(Path(sys.argv[1]), sys.argv[2:]):
        sys.stdout.write(f"made {what}\n")
