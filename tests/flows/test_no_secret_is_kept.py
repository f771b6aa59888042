"""After a run of every grant and page, no log, file or store holds a secret that was used in it (OWASP ASVS
16.2.5), and no line of a log was made by somebody else (16.4.1).
"""

import html
import json
import re
import secrets
import socket
import time
from base64 import b32decode, b64decode, b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest

from tests.authenticator import Authenticator
from tests.faults.stores import wait_until
from tests.live_server import ADMIN_PASSWORD, LiveServer, serving
from tests.person import Answer, Landing, Person
from tests.smtp_server import SmtpServer, listening
from tokenserver.identity.second_factors import totp
from tokenserver.oauth.grants import GRANTS

CALLBACK = "https://app.example/cb"
# Of forms, JSON, queries and pages: whatever is called so is nobody else's to know.
SECRET = re.compile(
    r"(?:new_|current_)?password|client_secret|code|code_verifier|(?:access|refresh|id|subject|actor)_token|token|"
    r"id_token_hint|registration_access_token|device_code|user_code|client_assertion|assertion|otp|csrf|confirmed|"
    r"interaction|secret|recovery_codes?|initial_access_token|challenge|signature|clientDataJSON|attestationObject"
)
# "code" is also what the word of an error is called, and `token` may be none.
LEAST = 8
# As lines of the log begin.
FORGED = '{"time": "2026-01-01T00:00:00.000Z", "level": "error", "logger": "tokenserver", "event": "forged"}'


class Watched(httpx.Client):
    """Remembers each secret that it sends or is sent, whatever the request is."""

    def __init__(self, seen: dict[str, str], url: str) -> None:
        self.seen = seen
        hooks: dict[str, Any] = {"request": [self._sent], "response": [self._got]}
        # Nobody closes it: it leaves no connection open.
        limits = httpx.Limits(max_keepalive_connections=0)
        super().__init__(base_url=url, timeout=60, trust_env=False, limits=limits, event_hooks=hooks)

    def _note(self, name: str, value: object, what: str) -> None:
        if isinstance(value, list):
            for each in value:
                self._note(name, each, what)
        elif isinstance(value, dict):
            for inner, each in value.items():
                self._note(inner, each, what)
        elif isinstance(value, str) and SECRET.fullmatch(name) and len(value) >= LEAST:
            self.seen.setdefault(value, f"{name} of {what}")

    def _fields(self, text: str, what: str) -> None:
        try:
            body = json.loads(text)
        except ValueError:
            body = dict(parse_qsl(text))
            body |= dict(re.findall(r'name="(\w+)" value="([^"]+)"', text))
        is_error = isinstance(body, dict) and "request_id" in body
        for name, value in body.items() if isinstance(body, dict) and not is_error else ():
            self._note(name, value, what)

    def _sent(self, request: httpx.Request) -> None:
        what = f"{request.method} {request.url.path}"
        self._fields(request.content.decode(errors="replace"), what)
        self._fields(request.url.query.decode(), what)
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            self._note("client_secret", b64decode(credentials).decode().partition(":")[2], what)
            self._note("secret", credentials, what)
        if scheme == "Bearer":
            self._note("token", credentials, what)

    def _got(self, response: httpx.Response) -> None:
        response.read()
        what = f"the answer to {response.request.method} {response.request.url.path}"
        self._fields(response.text, what)
        parts = urlsplit(response.headers.get("Location", ""))
        self._fields(parts.query, what)
        self._fields(parts.fragment, what)
        for cookie in response.headers.get_list("Set-Cookie"):
            self._note("secret", cookie.partition("=")[2].partition(";")[0], f"a cookie of {what}")


class Run:
    """What people and clients do; `seen`: the secrets, each with where it came from."""

    def __init__(self, server: LiveServer, mail: SmtpServer) -> None:
        self.server = server
        self.mail = mail
        self.origin = server.environment["TOKENSERVER_ISSUER"]
        self.seen: dict[str, str] = {str(mail.password): "password of the mail server"}
        self.http = Watched(self.seen, server.url)
        self.password = f"pw {secrets.token_urlsafe(12)}"
        self.granted: set[str] = set()

    def post(self, path: str, status: int = 200, **options: Any) -> dict[str, Any]:
        response = self.http.post(path, **options)
        assert response.status_code == status, (path, response.text)
        return dict(response.json()) if response.content else {}

    def token(self, **form: str) -> dict[str, Any]:
        self.granted.add(form["grant_type"])
        return self.post("/oauth/token", data=form)

    def person(self, username: str) -> Person:
        http = Watched(self.seen, self.origin)

        def send(method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
            response = http.request(method, url, headers=headers, content=body)
            return Answer(response.status_code, response.headers, response.text)

        return Person(send, self.origin, username, self.password)

    def link_to(self, recipient: str, page: str, count: int = 1) -> str:
        """The token of the last of so many links that are mailed."""

        def links() -> list[str]:
            letters = [each.text for each in self.mail.received if recipient in each.recipients]
            return [found[1] for text in letters if (found := re.search(rf"{page}\S*?token=([\w-]+)", text))]

        wait_until(lambda: len(links()) == count, f"{count} letters to {recipient}", patience=60)
        for token in links():
            self.seen.setdefault(token, f"token of a letter with a link to {page}")
        return links()[-1]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def everything(run: Run) -> None:
    admin = run.post("/auth/login", json={"login": "admin", "password": ADMIN_PASSWORD})
    as_admin = bearer(admin["access_token"])
    body = {"username": "ann", "email": "ann@example.org", "password": run.password}
    run.post("/auth/register", 201, json=body)
    run.http.post("/auth/login", json={"login": "ann", "password": "wrong horse 7 battery"})
    tokens = run.post("/auth/login", json={"login": "ann", "password": run.password})
    tokens = run.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    client = _client(run, as_admin)
    _grants(run, client)
    _pages(run, client)
    new = f"pw {secrets.token_urlsafe(12)}"
    change = {"password": new, "current_password": run.password}
    assert run.http.put("/users/me", json=change, headers=bearer(tokens["access_token"])).status_code == 200
    run.password = new
    tokens = run.post("/auth/login", json={"login": "ann", "password": new})
    run.post(f"/clients/{client['client_id']}/secret", headers=as_admin)
    run.post("/auth/logout", 204, headers=bearer(tokens["access_token"]))
    _register_a_client(run)
    _second_factor(run)
    _passkey(run)
    _mail(run)
    for path in ("/admin/logs", "/admin/stats", "/clients", "/users"):
        answer = run.http.get(f"{path}?limit=100" if path != "/admin/stats" else path, headers=as_admin)
        assert answer.status_code == 200
        assert not kept_in(answer.text, run.seen), path


def _client(run: Run, as_admin: dict[str, str]) -> dict[str, Any]:
    metadata = {
        "client_name": "App",
        "redirect_uris": [CALLBACK],
        "grant_types": sorted({*GRANTS, "implicit"}),
        "response_types": ["code", "code id_token token"],
        "scope": "openid profile posts:create tokens:introspect",
        "token_endpoint_auth_method": "client_secret_basic",
    }
    return run.post("/clients", 201, json=metadata, headers=as_admin)


def _grants(run: Run, client: dict[str, Any]) -> None:
    def ask(**form: str) -> dict[str, Any]:
        run.granted.add(form["grant_type"])
        return run.post("/oauth/token", data=form, auth=(client["client_id"], client["client_secret"]))

    auth = (client["client_id"], client["client_secret"])
    own = ask(grant_type="client_credentials", scope="posts:create")
    held = ask(grant_type="password", username="ann", password=run.password, scope="openid posts:create")
    held = ask(grant_type="refresh_token", refresh_token=held["refresh_token"])
    exchange = {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    grant = "urn:ietf:params:oauth:grant-type:token-exchange"
    run.granted.add(grant)  # refused without a policy, which is as good for what is asked here
    run.http.post(
        "/oauth/token", data={"grant_type": grant, "subject_token": own["access_token"], **exchange}, auth=auth
    )
    device = run.post("/oauth/device_authorization", data={"scope": "openid"}, auth=auth)
    run.person("ann").connect(f"{run.origin}/device", device["user_code"])
    ask(grant_type="urn:ietf:params:oauth:grant-type:device_code", device_code=device["device_code"])
    run.http.get("/oauth/userinfo", headers=bearer(held["access_token"]))
    run.http.get("/oauth/userinfo", params={"access_token": held["access_token"]})
    run.post("/oauth/introspect", data={"token": held["access_token"]}, auth=auth)
    run.post("/oauth/revoke", data={"token": held["refresh_token"]}, auth=auth)
    # refused, with secrets in the wrong places
    stray = {"grant_type": "password", "password": run.password, "client_secret": client["client_secret"]}
    run.http.post("/oauth/token", params=stray)
    run.http.post("/oauth/token", data=stray | {"client_id": client["client_id"], "password": "é" * 50})
    run.http.get(f"/nothing/{quote(FORGED)}", params=stray)
    run.http.post("/auth/login", content=json.dumps(stray)[:-1], headers={"Content-Type": "application/json"})


def _pages(run: Run, client: dict[str, Any]) -> None:
    verifier = secrets.token_urlsafe(40)
    challenge = b64encode(sha256(verifier.encode()).digest(), b"-_").decode().rstrip("=")
    asked = {
        "client_id": client["client_id"],
        "redirect_uri": CALLBACK,
        "scope": "openid profile posts:create",
        "state": secrets.token_urlsafe(16),
        "nonce": secrets.token_urlsafe(16),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    ann = run.person("ann")
    for response_type in ("code", "code id_token token"):
        query = urlencode(asked | {"response_type": response_type})
        landing = ann.authorize(f"{run.origin}/oauth/authorize?{query}", CALLBACK)
        assert isinstance(landing, Landing)
        for name, value in landing.parameters.items():
            if SECRET.fullmatch(name):
                run.seen.setdefault(value, f"{name} of a redirect")
        form = {"grant_type": "authorization_code", "code": landing.parameters["code"], "redirect_uri": CALLBACK}
        run.granted.add("authorization_code")
        got = run.post(
            "/oauth/token",
            data=form | {"code_verifier": verifier},
            auth=(client["client_id"], client["client_secret"]),
        )
    run.http.get("/oauth/logout", params={"id_token_hint": got["id_token"]})


def _second_factor(run: Run) -> None:
    body = {"username": "bob", "email": "bob@example.org", "password": run.password}
    run.post("/auth/register", 201, json=body)
    sign_in = {"login": "bob", "password": run.password}
    token = bearer(run.post("/auth/login", json=sign_in)["access_token"])
    proof = {"current_password": run.password}
    app = run.post("/users/me/second-factors/totp", 201, json=proof, headers=token)
    otp = totp.hotp(b32decode(app["secret"].replace(" ", "")), totp.step_at(time.time()))
    confirmed = run.post("/users/me/second-factors/totp/confirm", json={"otp": otp}, headers=token)
    run.post("/auth/login", json=sign_in | {"otp": confirmed["recovery_codes"][0]})


def _passkey(run: Run) -> None:
    body = {"username": "carl", "email": "carl@example.org", "password": run.password}
    run.post("/auth/register", 201, json=body)
    token = bearer(run.post("/auth/login", json={"login": "carl", "password": run.password})["access_token"])
    asked = run.post("/users/me/second-factors/passkeys/options", json={}, headers=token)
    key = Authenticator(run.origin)
    made = {"name": "Key", "credential": key.create(asked["options"])}
    run.post("/users/me/second-factors/passkeys", 201, json=made, headers=token)
    browser = Watched(run.seen, run.origin)
    page = browser.get("/login").text
    options = json.loads(html.unescape(re.findall(r'data-options="([^"]+)"', page)[0]))
    run.seen.setdefault(options["challenge"], "challenge of a page")
    credential = key.get(options)
    for name in ("signature", "clientDataJSON"):
        run.seen.setdefault(credential["response"][name], f"{name} of a form")
    form = {"csrf": re.findall(r'name="csrf" value="([^"]+)"', page)[0], "credential": json.dumps(credential)}
    assert browser.post("/login", data=form, headers={"Origin": run.origin}).status_code == 303
    assert browser.post("/login", data=form, headers={"Origin": run.origin}).status_code == 401  # once


def _mail(run: Run) -> None:
    body = {"username": "dora", "email": "dora@example.org", "password": run.password}
    run.post("/auth/register", 201, json=body)
    run.post("/auth/verify-email/request", 202, json={"email": "dora@example.org"})
    token = run.link_to("dora@example.org", "verify-email", count=2)
    run.http.get("/verify-email", params={"token": token})
    run.post("/auth/verify-email", 204, json={"token": token})
    run.post("/auth/password/forgot", 202, json={"email": "dora@example.org"})
    token = run.link_to("dora@example.org", "reset-password")
    run.http.get("/reset-password", params={"token": token})
    run.post("/auth/password/reset", 204, json={"token": token, "password": f"pw {secrets.token_urlsafe(12)}"})
    run.post("/auth/password/reset", 404, json={"token": token, "password": f"pw {secrets.token_urlsafe(12)}"})
    # One that is never used, and in wrong places.
    run.post("/auth/password/forgot", 202, json={"email": "ann@example.org"})
    token = run.link_to("ann@example.org", "reset-password")
    run.http.post("/auth/password/reset", params={"token": token}, content=token)


def _register_a_client(run: Run) -> None:
    invited = json.loads(run.server.run("client", "invite", "--json"))
    token = next(value for value in invited.values() if str(value).startswith("iat_"))
    metadata = {"redirect_uris": [CALLBACK], "client_name": "Theirs"}
    made = run.post("/oauth/register", 201, json=metadata, headers=bearer(token))
    at = urlsplit(made["registration_client_uri"]).path
    assert run.http.get(at, headers=bearer(made["registration_access_token"])).status_code == 200


def forge(server: LiveServer) -> None:
    """Lines of a log, by whatever comes from outside."""
    parts = urlsplit(server.url)
    bad = [f"a\r\n{FORGED}", f"a\x1b[2J{FORGED}", f"a\n{FORGED}", f"a\u2028{FORGED}", f"a\x85{FORGED}"]
    for text in bad:
        body = {"login": text, "password": text, "username": text, "email": text}
        for path in ("/auth/login", "/auth/register"):
            httpx.post(server.url + path, json=body, trust_env=False, timeout=60)
        form = dict.fromkeys(("grant_type", "client_id", "username", "scope", "redirect_uri"), text)
        httpx.post(f"{server.url}/oauth/token", data=form, trust_env=False, timeout=60)
        httpx.get(f"{server.url}/oauth/authorize", params=form, trust_env=False, timeout=60)
        httpx.get(f"{server.url}/a{quote(text)}", trust_env=False, timeout=60)
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
            head = (
                b"GET /raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: %s\r\nX-Request-ID: %s\r\n\r\n"
            )
            value = text.replace("\r", "").replace("\n", "").encode()
            connection.sendall(head % (value, value))
            while connection.recv(65536):
                pass


def kept_in(text: "str | bytes", seen: dict[str, str]) -> list[str]:
    """Where the secrets came from that are in it: never the secrets, which a report would keep."""
    text = text.encode() if isinstance(text, str) else text
    return sorted({what for secret, what in seen.items() if any(form in text for form in forms_of(secret))})


def forms_of(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield b64encode(secret.encode()).rstrip(b"=")
    if re.fullmatch(r"[A-Z2-7 ]{16,}", secret):  # of an authenticator app, as it is or in bytes
        key = secret.replace(" ", "")
        yield key.encode()
        yield b32decode(key + "=" * (-len(key) % 8))
    if secret.count(".") == 2:  # a JWT: what signs it is enough
        yield secret.rpartition(".")[2].encode()


def files_of(server: LiveServer) -> list[Path]:
    """All but the key ring, which is made of secrets."""
    keys = Path(server.environment["TOKENSERVER_KEYS_DIR"])
    return [file for file in server.folder.rglob("*") if file.is_file() and keys not in file.parents]


@pytest.fixture(scope="module")
def finished() -> Iterator[tuple[Run, LiveServer]]:
    """A server that has done everything and was ended, so that all it keeps is in its files."""
    with (
        listening(password=secrets.token_urlsafe(12)) as mail,
        serving(
            log_level="debug",
            log_format="json",
            workers="1",
            rate_limits="off",
            issuer="http://localhost:{port}",
            # With a server that takes mail nothing of it is in the log, as in production.
            smtp_url=f"smtp://mailer:{mail.password}@127.0.0.1:{mail.port}?starttls=off",
        ) as server,
    ):
        run = Run(server, mail)
        everything(run)
        forge(server)
        exported = server.run("audit", "tail", "--json")
        (server.folder / "tail").write_text(exported)
        server.stop()
        yield run, server


def test_no_secret_is_kept(finished: tuple[Run, LiveServer]):
    run, server = finished
    assert run.granted >= set(GRANTS)
    names = {what.partition(" of ")[0] for what in run.seen.values()}
    assert names >= {"password", "client_secret", "code", "access_token", "refresh_token", "id_token", "csrf"}
    assert names >= {"device_code", "user_code", "code_verifier", "registration_access_token", "secret"}
    assert names >= {"recovery_codes", "challenge", "signature", "clientDataJSON", "attestationObject"}
    assert {"verify-email", "reset-password"} <= {what.rpartition(" ")[2] for what in run.seen.values()}
    files = files_of(server)
    assert {server.log_file, server.folder / "tail"} <= set(files)
    assert any(file.suffix.startswith(".sqlite") or "sqlite" in file.name for file in files), files
    # Redis keeps what a browser came with until its user has signed in: the code on their television, which lets
    # that in and nobody else.
    pending = {secret: what for secret, what in run.seen.items() if not what.startswith("user_code ")}
    found = {
        file.name: kept_in(file.read_bytes(), pending if "appendonly" in file.name else run.seen) for file in files
    }
    assert {name: kept for name, kept in found.items() if kept} == {}


def test_what_is_kept_would_be_found(finished: tuple[Run, LiveServer], tmp_path: Path):
    """The search can fail."""
    run, server = finished
    for secret, what in list(run.seen.items())[:50]:
        assert what in kept_in(f"x{secret}y", run.seen)
    assert "ann@example.org" in b"".join(file.read_bytes() for file in files_of(server)).decode(errors="replace")
    assert kept_in("nothing", run.seen) == []


def test_a_log_line_is_of_one_event_and_of_the_server(finished: tuple[Run, LiveServer]):
    _, server = finished
    log = server.log_file.read_bytes()
    assert not [byte for byte in (b"\x1b", b"\r", b"\x85", b"\0", "\u2028".encode()) if byte in log]
    # What a first start says of its admin is no line of the log.
    lines = [line for line in log.decode().splitlines() if line and not line.startswith("First admin: ")]
    events = [json.loads(line) for line in lines]
    for event in events:
        assert list(event)[:4] == ["time", "level", "logger", "event"], event
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert {"node", "pid"} <= event.keys()
    assert not [event for event in events if event["event"] == "forged"]
    requests = [event for event in events if event["logger"] == "tokenserver.request"]
    assert len(requests) > 50
    assert {event["outcome"] for event in requests} >= {"success", "refused"}
    assert all(event["request_id"] and "?" not in event["path"] for event in requests)
    assert {event["event"] for event in events if event["logger"] == "tokenserver.start"} >= {"ready", "1 worker"}
    assert {event["level"] for event in events} >= {"info", "debug"}
