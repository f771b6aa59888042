"""No server at all, for comparison: an answer as long as a token's, one question to Redis before it, and a
signature where there would be a token. It checks nothing, knows nobody and keeps nothing: what it costs is what the
machine, granian, Redis and `cryptography` cost by themselves.
"""

import json
import os
import socket
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SIGNED: Final = b"e" * 700
GET: Final = b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n"
TOKEN, JWKS = "/token", "/jwks"
KEY: Final = rsa.generate_private_key(65537, 2048)
SCHEME, DIGEST = padding.PKCS1v15(), hashes.SHA256()
ours: Final = threading.local()


def ask_redis() -> None:
    if not hasattr(ours, "connection"):
        place = urlsplit(os.environ["REDIS_URL"])
        ours.connection = socket.create_connection((place.hostname, place.port))
        ours.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours.connection.sendall(GET)
    ours.connection.recv(4096)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    token = SIGNED.decode()
    if path != JWKS:
        environ["wsgi.input"].read()
        ask_redis()
    if path == TOKEN:
        token = f"{token}.{urlsafe_b64encode(KEY.sign(SIGNED, SCHEME, DIGEST)).decode()}"
    body = json.dumps({"access_token": token, "refresh_token": "another"}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    clients = {name: {"client_id": name, "client_secret": name} for name in ("service", "app")}
    print(json.dumps({"clients": clients, "refresh_tokens": ["one"] * int(sys.argv[1])}))
