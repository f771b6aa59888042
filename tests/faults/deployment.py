"""A deployment as an operator would run it: nodes of `tokenserver serve` on shared stores and shared keys."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.faults.proxy import FaultProxy
from tests.faults.stores import PostgresProcess, RedisProcess, wait_until
from tests.live_server import ADMIN_PASSWORD, COMMAND, LiveServer, is_worker
from tests.ports import free_port


@dataclass
class Deployment:
    """`redis`, `postgres`: None where the stores are embedded or the experiment's own."""

    folder: Path
    nodes: list[LiveServer]
    redis: RedisProcess | None = None
    postgres: PostgresProcess | None = None
    secret: str = field(default="", repr=False)  # of the client that introspects
    redis_proxy: FaultProxy | None = None
    postgres_proxy: FaultProxy | None = None

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def first(self) -> LiveServer:
        return self.nodes[0]

    @property
    def store(self) -> RedisProcess:
        assert self.redis is not None
        return self.redis

    @property
    def proxy(self) -> FaultProxy:
        """Between the nodes and Redis."""
        assert self.redis_proxy is not None
        return self.redis_proxy

    @property
    def database(self) -> PostgresProcess:
        assert self.postgres is not None
        return self.postgres

    def processes(self) -> list[tuple[str, int]]:
        """The processes of the nodes: what each is, and its number."""
        found = []
        for number, node in enumerate(self.nodes, 1):
            assert node.process is not None
            found.append((f"parent of node {number}", node.process.pid))
            found += [(f"worker of node {number}", pid) for pid in workers_of(node)]
        return found

    def logs(self) -> str:
        return "\n".join((node.folder / "server.log").read_text(errors="replace") for node in self.nodes)


def spawn(node: LiveServer, **environment: str) -> None:
    """Starts a node again and returns when its process answers; it need not be ready."""
    with (node.folder / "server.log").open("ab") as log:
        node.process = subprocess.Popen(
            [COMMAND, "serve"],
            env=node.environment | environment,
            cwd=node.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{node.url}/healthz", trust_env=False).status_code == 200
        return False

    wait_until(answers, f"{node.url} answers", patience=60)


def readiness(node: LiveServer) -> tuple[int, list[str]]:
    """What `/readyz` says: the status, and what is missing."""
    answer = httpx.get(f"{node.url}/readyz", trust_env=False, timeout=30)
    return answer.status_code, answer.json()["missing"]


def workers_of(node: LiveServer) -> list[int]:
    """The worker processes that live now."""
    assert node.process is not None
    return [pid for pid in children_of(node.process.pid) if is_worker(pid)]


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


@contextlib.contextmanager
def deployed(
    *,
    template: Path | None = None,
    nodes: int = 2,
    workers: int = 2,
    embedded: bool = False,
    redis_url: str = "",
    database_url: str = "",
    redis_options: dict[str, str] | None = None,
    postgres_options: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    proxied: int | None = None,
    first_start: dict[str, str] | None = None,
    **settings: str,
) -> Iterator[Deployment]:
    """`redis_url`, `database_url`: stores of the experiment's own. `proxied`: the seed of proxies between the
    nodes and both stores. `template`: where a fresh PostgreSQL lies, to be copied. `first_start`: the environment
    of what makes schema and keys. `settings`: without their prefix, in small letters."""
    folder = Path(tempfile.mkdtemp(prefix="ts-faults-"))
    folder.chmod(0o755)
    made = Deployment(folder, [])
    stack = contextlib.ExitStack()
    try:
        if not embedded:
            if not redis_url:
                made.redis = RedisProcess(folder / "redis", options=redis_options or {})
                made.redis.start()
                redis_url = made.redis.url
            if not database_url:
                made.postgres = PostgresProcess(
                    folder / "postgres", template or folder / "template", **(postgres_options or {})
                )
                made.postgres.start()
                database_url = made.postgres.url
            if proxied is not None and made.redis and made.postgres:
                made.redis_proxy = stack.enter_context(FaultProxy(("127.0.0.1", made.redis.port), seed=proxied))
                made.postgres_proxy = stack.enter_context(
                    FaultProxy(("127.0.0.1", made.postgres.port), seed=proxied)
                )
                redis_url = redis_url.replace(str(made.redis.port), str(made.redis_proxy.port))
                database_url = database_url.replace(str(made.postgres.port), str(made.postgres_proxy.port))
            settings |= {"redis_url": redis_url, "database_url": database_url}
        ports = [free_port() for _ in range(nodes)]
        settings = {"issuer": f"http://127.0.0.1:{ports[0]}"} | settings
        for number, port in enumerate(ports, 1):
            made.nodes.append(_node(folder, number, port, workers, settings, environment or {}))
        if first_start:
            usual = made.first.environment
            made.first.environment = usual | first_start
            made.first.run("init")
            made.first.environment = usual
        made.first.start()  # makes the schema, the keys and the admin
        with ThreadPoolExecutor(nodes) as pool:
            list(pool.map(LiveServer.start, made.nodes[1:]))
        scopes = "openid tokens:introspect"
        _, made.secret = made.first.create_client("backend", "client_credentials", scope=scopes)
        yield made
    finally:
        for node in made.nodes:
            _end(node)
        stack.close()
        if made.redis:
            made.redis.stop()
        if made.postgres:
            made.postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _node(
    folder: Path, number: int, port: int, workers: int, settings: dict[str, str], environment: dict[str, str]
) -> LiveServer:
    own = folder / f"node{number}"
    own.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENSERVER_")}
    options = {
        "port": str(port),
        "workers": str(workers),
        "data_dir": str(own / "var"),
        "keys_dir": str(folder / "keys"),
        "admin_password": ADMIN_PASSWORD,
        "rate_limits": "off",
        "log_level": "warning",
    } | settings
    given = {f"TOKENSERVER_{name.upper()}": value for name, value in options.items()}
    return LiveServer(f"http://127.0.0.1:{port}", own, inherited | given | environment)


def _end(node: LiveServer) -> None:
    if node.process is None:
        return
    if node.process.poll() is None:
        with contextlib.suppress(Exception):
            node.stop()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.process.pid, signal.SIGKILL)


def claims_of(token: str) -> dict[str, Any]:
    """What a JWT says; its signature is somebody else's concern."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


def family_of(refresh_token: str) -> str:
    return base64.urlsafe_b64decode(refresh_token.removeprefix("rt_") + "==")[:16].hex()
