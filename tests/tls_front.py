"""TLS in front of a server that speaks plain HTTP, as a proxy stands before it in production, with its own
authority. Everything is on 127.0.0.1.
"""

import asyncio
import base64
import datetime as dt
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "127.0.0.1"
CHUNK = 64 * 1024


@dataclass(frozen=True)
class Authority:
    """`ca_file`: what clients trust. `chain_file`: certificate and key of 127.0.0.1. `key_hash`: of its public key,
    as Chromium takes it."""

    ca_file: Path
    chain_file: Path
    key_hash: str

    @classmethod
    def make(cls, folder: Path) -> Self:
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name, name = _name("Authority of the tests"), _name(HOST)
        identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        ca = (
            _builder(ca_name, ca_name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        certificate = (
            _builder(name, ca_name, key)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        encoding, pem = serialization.Encoding, serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ca_file, chain_file = folder / "ca.pem", folder / "127.0.0.1.pem"
        ca_file.write_bytes(ca.public_bytes(pem))
        chain_file.write_bytes(certificate.public_bytes(pem) + private)
        return cls(ca_file, chain_file, base64.b64encode(hashlib.sha256(public).digest()).decode())

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))


@contextmanager
def tls_front(authority: Authority, listener: socket.socket, port: int) -> Iterator[None]:
    """What comes in at `listener`, a bound socket, goes to `port`, byte by byte."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            back_reader, back_writer = await asyncio.open_connection(HOST, port)
            try:
                await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
            finally:
                writer.transport.abort()
                back_writer.transport.abort()

    async def end() -> None:
        server.close()
        tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # what was aborted is closed by the loop
        loop.stop()

    server = loop.run_until_complete(
        asyncio.start_server(serve, sock=listener, ssl=authority.server_context(), ssl_shutdown_timeout=1)
    )
    thread = threading.Thread(target=loop.run_forever, name="tls-front", daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(10)
        loop.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK):
        sink.write(chunk)
        await sink.drain()
    sink.close()


def listen() -> tuple[socket.socket, str]:
    """A bound socket, and the origin of what will be served there."""
    listener = socket.socket()
    listener.bind((HOST, 0))
    return listener, f"https://{HOST}:{listener.getsockname()[1]}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
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
