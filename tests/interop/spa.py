"""A single-page application with oidc-client-ts, served by TLS on an origin of its own."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.certificates import Certificate

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>app</title>
<link rel="icon" href="data:,">
<script src="/oidc-client-ts.min.js"></script></head><body>app</body></html>"""
# What runs in the hidden frame of a silent sign-in.
SILENT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>silent</title>
<script src="/oidc-client-ts.min.js"></script><script>
new oidc.UserManager({authority: "https://unused.example", client_id: "", redirect_uri: ""}).signinSilentCallback()
</script></head></html>"""


@contextmanager
def serving(certificate: Certificate, listener: socket.socket, library: bytes) -> Iterator[None]:
    pages: Mapping[str, tuple[str, bytes]] = {
        "/": ("text/html", PAGE.encode()),
        "/cb": ("text/html", PAGE.encode()),
        "/silent": ("text/html", SILENT.encode()),
        "/oidc-client-ts.min.js": ("text/javascript", library),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = pages.get(urlsplit(self.path).path, ("text/plain", b""))
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Says nothing."""

    server = ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = certificate.context().wrap_socket(listener, server_side=True, do_handshake_on_connect=False)
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
