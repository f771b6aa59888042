"""The application of somebody else: a page to come back to, a logo, and whatever else a test wants it to show."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The application</title>
<link rel="icon" href="data:,"></head><body><main><h1 id="application">The application</h1></main></body></html>"""
LOGO: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14"
 fill="#0f7b6c"/><path d="M16 42V22l16 12 16-12v20" fill="none" stroke="#fff" stroke-width="6"
 stroke-linejoin="round" stroke-linecap="round"/></svg>"""


@dataclass
class Application:
    """`shown`: by path, the headers and the body."""

    origin: str
    shown: dict[str, tuple[dict[str, str], str]] = field(default_factory=dict)

    @property
    def redirect_uri(self) -> str:
        return f"{self.origin}/cb"

    def show(self, path: str, body: str, kind: str = "text/html", **headers: str) -> str:
        """Its address. `headers`: with "_" for "-"."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.shown[path] = ({"Content-Type": f"{kind}; charset=utf-8"} | given, body)
        return self.origin + path


@contextmanager
def serving() -> Iterator[Application]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers, body = application.shown.get(urlsplit(self.path).path, ({}, ""))
            self.send_response(200 if body else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            sent = body.encode()
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    application = Application(f"http://127.0.0.1:{server.server_port}")
    application.show("/cb", PAGE)
    application.show("/", PAGE)
    application.show("/logo.svg", LOGO, "image/svg+xml")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield application
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
