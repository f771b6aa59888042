"""Services of docs/validate.md, run with the addresses of a test, and tokens that they must tell apart."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.docs.fences import ROOT, marked
from tests.live_server import LiveServer

PAGE = ROOT / "docs" / "validate.md"
START_SECONDS = 120


@dataclass
class Service:
    url: str

    def ask(self, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{self.url}/reports", headers=headers, timeout=30, trust_env=False)


def example(mark: str, issuer: str, **addresses: int) -> str:
    """The block of the page, for this issuer. `addresses`: our port for each of the page's, as `port_8081`."""
    text = marked(PAGE, f"run: {mark}").replace("http://127.0.0.1:8000", issuer)
    for name, port in addresses.items():
        printed = name.removeprefix("port_")
        assert printed in text
        text = text.replace(printed, str(port))
    return text


@contextmanager
def running(command: list[Any], port: int, folder: Path) -> Iterator[Service]:
    """The command's service, once it listens. Its process is ended."""
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    service = Service(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            said = (folder / "service.log").read_text(errors="replace")
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            try:
                service.ask()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield service
    finally:
        process.terminate()
        process.wait(30)


def signed(server: LiveServer, token: str, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token like this one but for some claims, signed by the server's own key, as the server never would."""
    first, payload, _ = token.split(".")
    own = {**json.loads(_decoded(first)), **(header or {})}
    keys = Path(server.environment["TOKENSERVER_KEYS_DIR"])
    key = RSAKey.import_key((keys / f"RS256-{own['kid']}.pem").read_bytes())
    return jwt.encode(own, json.loads(_decoded(payload)) | claims, key)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")


def altered(token: str) -> str:
    # Not the last character: some of its bits may not count.
    place = token.rindex(".") + 10
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def bad_tokens(server: LiveServer, good: str) -> dict[str, str]:
    """What must be refused with 401 `invalid_token`."""
    now = int(time.time())
    return {
        "altered": altered(good),
        "expired": signed(server, good, iat=now - 7200, exp=now - 3600),
        "another audience": signed(server, good, aud="https://elsewhere.example"),
        "another issuer": signed(server, good, iss="https://elsewhere.example"),
        "an ID token": signed(server, good, {"typ": "JWT"}),
        "no token at all": "nonsense",
    }
