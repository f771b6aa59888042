"""Tokens of a live server for the verifiers of strangers, and a provider behind TLS for their clients.

What a machine must have for a test is asked for here: without it the test is skipped, and fails where CI=true.
"""

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
import pytest

from tests.certificates import Authority, Certificate
from tests.live_server import ADMIN_PASSWORD, PASSWORD, LiveServer, live_server, serving
from tests.person import Person
from tests.tls_front import listen, tls_front

__all__ = ["live_server"]

NODE: Final = Path(__file__).parent / "node"
# npm's words for a lock file that doesn't fit, or a package that isn't the one we locked: no accident.
OUR_FAULTS: Final = {"EUSAGE", "EINTEGRITY", "EJSONPARSE", "ETARGET", "E404"}


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our scripts beside the packages that they use, installed once for all processes of this run."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            unavailable(f"clients in Node are not tested: there is no {program} on the path")
    # Every process of pytest-xdist has its own folder in one that they share.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "node"
    with (folder.parent / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = folder / "outcome"
        if not outcome.exists():
            shutil.copytree(NODE, folder)
            outcome.write_text(_install(folder), encoding="utf-8")
    fault = outcome.read_text(encoding="utf-8")
    assert not fault.startswith("ours: "), fault
    if fault:
        unavailable(f"clients in Node are not tested: npm ci failed with {fault}")
    return folder


def _install(folder: Path) -> str:
    """What went wrong, or nothing."""
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if not done.returncode:
        return ""
    word = re.search(r"npm (?:error|ERR!) code (\w+)", done.stderr)
    if word is None:
        return str(done.returncode)
    return f"ours: {done.stderr}" if word[1] in OUR_FAULTS else word[1]


@dataclass(frozen=True)
class Provider:
    """A live server whose issuer is https, as in production."""

    server: LiveServer
    issuer: str
    authority: Authority
    certificate: Certificate
    http: httpx.Client

    def user(self, username: str, **profile: Any) -> Person:
        """Registered, and at a browser of their own."""
        body = {"username": username, "email": f"{username}@example.org", "password": PASSWORD} | profile
        response = self.http.post("/auth/register", json=body)
        assert response.status_code == 201, response.text
        return self.person(username)

    def person(self, username: str) -> Person:
        return Person.at(self.issuer, username, verify=self.authority.trusted())

    def client(self, **metadata: Any) -> dict[str, Any]:
        """Registered by the admin, in the words of RFC 7591."""
        credentials = {"login": "admin@localhost", "password": ADMIN_PASSWORD}
        token = self.http.post("/auth/login", json=credentials).raise_for_status().json()["access_token"]
        response = self.http.post("/clients", json=metadata, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 201, response.text
        return dict(response.json())


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    certificate = authority.server("127.0.0.1")
    listener, issuer = listen()
    options = {"issuer": issuer, "fetch_private": "127.0.0.0/8", "fetch_ca_file": str(authority.ca_file)}
    with (
        serving(**options) as server,
        tls_front(certificate, listener, int(server.environment["TOKENSERVER_PORT"])),
        httpx.Client(base_url=issuer, verify=authority.trusted(), trust_env=False, timeout=30) as http,
    ):
        yield Provider(server, issuer, authority, certificate, http)


@pytest.fixture(scope="module")
def trusted(provider: Provider) -> Iterator[None]:
    """What programs built on requests, such as Authlib's and oauthlib's clients, are told by their environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(provider.authority.ca_file))
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


class Story:
    """A script in Node that is a client. It prints a line of JSON where a person is needed, `{"authorize": url,
    "redirect_uri": …}`, reads the address that they came back to, and prints `{"result": …}` at its end.
    """

    def __init__(self, folder: Path, provider: Provider) -> None:
        self.folder = folder
        self.provider = provider

    def __call__(self, script: str, person: Person, **options: Any) -> dict[str, Any]:
        told = json.dumps({"issuer": self.provider.issuer} | options)
        environment = os.environ | {"NODE_EXTRA_CA_CERTS": str(self.provider.authority.ca_file)}
        process = subprocess.Popen(
            ["node", self.folder / script, told],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # A device that nobody lets in would ask until its code expires.
        watch = threading.Timer(60, process.kill)
        watch.start()
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            for line in process.stdout:
                said = json.loads(line)
                if "result" in said:
                    return dict(said["result"])
                process.stdin.write(json.dumps(self._answer(person, said)) + "\n")
                process.stdin.flush()
            pytest.fail(f"{script}: {process.stderr.read()}")
        finally:
            watch.cancel()
            process.kill()
            process.communicate()

    @staticmethod
    def _answer(person: Person, said: dict[str, str]) -> str:
        if "authorize" in said:
            return person.authorize(said["authorize"], said["redirect_uri"]).url
        if "logout" in said:
            return person.sign_out(said["logout"], said["redirect_uri"]).url
        assert person.connect(said["device"], said["user_code"]).status == 200
        return ""


@pytest.fixture
def story(node_folder: Path, provider: Provider) -> Story:
    return Story(node_folder, provider)


@pytest.fixture(scope="session")
def user_token(live_server: LiveServer) -> str:
    return str(live_server.signed_in("interop")["access_token"])


@pytest.fixture(scope="session")
def client_token(live_server: LiveServer) -> str:
    client_id, secret = live_server.create_client("interop-job", "client_credentials", scope="users:read")
    form = {"grant_type": "client_credentials"}
    return str(live_server.post("/oauth/token", data=form, auth=(client_id, secret))["access_token"])


@pytest.fixture(scope="session", params=["user", "client"])
def token(request: pytest.FixtureRequest) -> str:
    """From /auth/login, and by client_credentials."""
    return str(request.getfixturevalue(f"{request.param}_token"))


def _more_scope(token: str) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["scope"] = "roles:write"
    altered = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{altered}.{signature}"


def _other_signature(token: str) -> str:
    # Not the last character: some of its bits may not count.
    place = token.rindex(".") + 10
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


@pytest.fixture(params=[_more_scope, _other_signature], ids=["payload", "signature"])
def alter(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """One way to tamper with a token."""
    change: Callable[[str], str] = request.param
    return change
