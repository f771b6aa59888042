"""A certificate authority of the tests' own: certificates of servers on loopback and of their clients.

For stores and servers with TLS on both sides; everything is made in a folder of the test and lives for two days.
"""

import base64
import datetime as dt
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK: Final = ("127.0.0.1", "localhost")
PEM: Final = serialization.Encoding.PEM


@dataclass(frozen=True)
class Certificate:
    """`key_file` is readable by its owner alone, as libpq and PostgreSQL ask."""

    cert_file: Path
    key_file: Path

    def context(self) -> ssl.SSLContext:
        """Of a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context

    @property
    def key_hash(self) -> str:
        """Of its public key, as Chromium takes it."""
        public = x509.load_pem_x509_certificate(self.cert_file.read_bytes()).public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Authority:
    """`ca_file`: what those trust who are to accept its certificates."""

    def __init__(self, folder: Path, name: str = "An authority of the tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = _builder(self._name, self._name, self._key, dt.timedelta(days=2))
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        own = own.add_extension(_usage(signs_certificates=True), critical=True)
        self.ca_file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    def server(
        self, *names: str, file: str = "server", lifetime: dt.timedelta = dt.timedelta(days=2)
    ) -> Certificate:
        """For these names and addresses. The nodes of a Redis or CockroachDB are clients of each other with it.

        A negative lifetime makes one that has expired.
        """
        alternatives: list[x509.GeneralName] = []
        for name in names or LOOPBACK:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        common_name = (names or LOOPBACK)[0]
        return self._make(common_name, file, uses, x509.SubjectAlternativeName(alternatives), lifetime)

    def trusted(self) -> ssl.SSLContext:
        """Of a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def client(
        self, common_name: str, *, file: str = "", lifetime: dt.timedelta = dt.timedelta(days=2)
    ) -> Certificate:
        return self._make(common_name, file or common_name, [ExtendedKeyUsageOID.CLIENT_AUTH], None, lifetime)

    def _make(
        self,
        common_name: str,
        file: str,
        uses: list[x509.ObjectIdentifier],
        alternatives: x509.SubjectAlternativeName | None,
        lifetime: dt.timedelta,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = _builder(subject, self._name, key, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        builder = builder.add_extension(issuer_id, critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        made = Certificate(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        made.cert_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        made.key_file.touch(mode=0o600)
        made.key_file.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - abs(lifetime) - dt.timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
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
