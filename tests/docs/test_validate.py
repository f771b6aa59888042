"""Each example of docs/validate.md guards a service of a live server: what is good passes, nothing else does."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.docs.fences import ROOT
from tests.docs.guarded import altered, bad_tokens, example, running, signed
from tests.interop.conftest import unavailable
from tests.live_server import PASSWORD
from tests.ports import free_port

ASKED = set(filter(None, os.environ.get("TOKENSERVER_TEST_VERIFIERS", "").split(",")))
GO_PACKAGES = ("github.com/golang-jwt/jwt/v5@v5.3.1", "github.com/MicahParks/keyfunc/v3@v3.9.1")
ENVOY_PACKAGE = "github.com/envoyproxy/go-control-plane/envoy@v1.36.0"
JAVA_PACKAGE = "com.nimbusds:nimbus-jose-jwt:10.10"
OFFLINE = ["flask", "node", "go", "java"]


def program(name):
    found = shutil.which(name)
    if found is None:
        unavailable(f"an example of docs/validate.md is not tested: there is no {name} on the path")
    return found


def asked_for(language):
    if language not in ASKED:
        pytest.skip(f"TOKENSERVER_TEST_VERIFIERS={language} runs the example in {language}")


def run(*command, folder, **options):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def reader(live_server):
    return live_server.signed_in("reports-reader")


@pytest.fixture(scope="module")
def services(live_server, tmp_path_factory, request):
    """Starts each service at most once."""
    made = {}
    with ExitStack() as stack:

        def start(name, issuer=live_server.url):
            if (name, issuer) not in made:
                folder = tmp_path_factory.mktemp(name)
                port = free_port()
                command = STARTED[name](issuer, folder, port, request)
                made[name, issuer] = stack.enter_context(running(command, port, folder))
            return made[name, issuer]

        yield start


def flask(issuer, folder, port, request):
    (folder / "reports.py").write_text(example("flask", issuer), encoding="utf-8")
    return [sys.executable, "-m", "flask", "--app", "reports", "run", "--port", str(port)]


def node(issuer, folder, port, request):
    # Beside the packages that it imports.
    script = request.getfixturevalue("node_folder") / f"reports-{port}.mjs"
    script.write_text(example("node", issuer, port_8081=port), encoding="utf-8")
    return [program("node"), script]


def go(issuer, folder, port, request):
    asked_for("go")
    (folder / "main.go").write_text(example("go", issuer, port_8081=port), encoding="utf-8")
    run(program("go"), "mod", "init", "example.org/reports", folder=folder)
    run("go", "get", *GO_PACKAGES, folder=folder)
    run("go", "build", "-o", "reports", ".", folder=folder)
    return [folder / "reports"]


def java(issuer, folder, port, request):
    asked_for("java")
    (folder / "Reports.java").write_text(example("java", issuer, port_8081=port), encoding="utf-8")
    group, artifact, version = JAVA_PACKAGE.split(":")
    coordinates = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>example</groupId><artifactId>reports</artifactId>"
        f"<version>1</version><dependencies><dependency>{coordinates}</dependency></dependencies></project>",
        encoding="utf-8",
    )
    copy = ("dependency:copy-dependencies", "-DoutputDirectory=lib")
    run(program("mvn"), "--quiet", "--batch-mode", *copy, folder=folder)
    return [program("java"), "-cp", "lib/*", "Reports.java"]


STARTED = {"flask": flask, "node": node, "go": go, "java": java}


def refused(response, status, error):
    assert response.status_code == status
    challenge = response.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer realm=")
    assert (f'error="{error}"' in challenge) if error else ("error=" not in challenge)


@pytest.mark.parametrize("name", OFFLINE)
class TestOffline:
    def test_what_is_good_passes(self, services, live_server, reader, name):
        response = services(name).ask(reader["access_token"])
        assert response.status_code == 200
        assert response.json() == {"reader": live_server.me(reader["access_token"])["id"]}

    def test_nothing_else_does(self, services, live_server, reader, name):
        service = services(name)
        refused(service.ask(), 401, None)
        for why, token in bad_tokens(live_server, reader["access_token"]).items():
            assert service.ask(token).status_code == 401, why
            refused(service.ask(token), 401, "invalid_token")
        refused(
            service.ask(signed(live_server, reader["access_token"], scope="users:read")), 403, "insufficient_scope"
        )
        # The key of the tests is the server's: what is refused above is refused for what it says.
        assert service.ask(signed(live_server, reader["access_token"], jti="another")).status_code == 200

    def test_a_revoked_token_is_good_until_it_expires(self, services, live_server, reader, name):
        service = services(name)
        tokens = live_server.post("/auth/login", json={"login": "reports-reader", "password": PASSWORD})
        live_server.post("/oauth/revoke", data={"client_id": "first-party", "token": tokens["refresh_token"]})
        live_server.me(tokens["access_token"], 401)
        assert service.ask(tokens["access_token"]).status_code == 200


@pytest.mark.parametrize("name", [name for name in OFFLINE if name != "go"])
def test_without_keys_nothing_can_be_known(services, reader, name):
    response = services(name, f"http://127.0.0.1:{free_port()}").ask(reader["access_token"])
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


class Behind(BaseHTTPRequestHandler):
    """A service that knows nothing of tokens: it says who nginx says that asks."""

    def do_GET(self):
        body = json.dumps({"reader": self.headers["X-Reader"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture(scope="module")
def behind():
    """The port of the service behind nginx."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def guarding(folder, behind, issuer, credentials):
    """nginx in front of the service."""
    (folder / "introspection").write_bytes(base64.b64encode(":".join(credentials).encode()))
    script = example("njs", issuer).replace("/etc/nginx/introspection", str(folder / "introspection"))
    (folder / "introspect.js").write_text(script, encoding="utf-8")
    port = free_port()
    configuration = example("nginx", issuer, port_8081=port, port_8082=behind)
    # Nothing of the machine's own is touched.
    places = "".join(
        f"  {kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = configuration.replace("http {\n", f"http {{\n  access_log off;\n{places}", 1)
    configuration = configuration.replace("load_module modules/", "load_module /usr/lib/nginx/modules/")
    (folder / "nginx.conf").write_text(configuration, encoding="utf-8")
    settings = f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;"
    command = [program("nginx"), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", "-g", settings]
    with running(command, port, folder) as service:
        yield service


@pytest.fixture(scope="module")
def nginx(live_server, behind, tmp_path_factory):
    client = live_server.create_client("gateway", "client_credentials", scope="tokens:introspect")
    with guarding(tmp_path_factory.mktemp("nginx"), behind, live_server.url, client) as service:
        yield service


class TestNginx:
    def test_what_is_good_passes(self, nginx, live_server, reader):
        response = nginx.ask(reader["access_token"])
        assert response.status_code == 200
        assert response.json() == {"reader": live_server.me(reader["access_token"])["id"]}

    def test_nothing_else_does(self, nginx, live_server, reader):
        refused(nginx.ask(), 401, None)
        bad = bad_tokens(live_server, reader["access_token"])
        bad["a refresh token"] = reader["refresh_token"]
        for why, token in bad.items():
            assert nginx.ask(token).status_code == 401, why
            refused(nginx.ask(token), 401, "invalid_token")
        client = live_server.create_client("reports-job", "client_credentials", scope="users:read")
        token = live_server.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=client)[
            "access_token"
        ]
        refused(nginx.ask(token), 403, "insufficient_scope")

    def test_a_revoked_token_is_refused_at_once(self, nginx, live_server, reader):
        tokens = live_server.post("/auth/login", json={"login": "reports-reader", "password": PASSWORD})
        assert nginx.ask(tokens["access_token"]).status_code == 200
        live_server.post("/oauth/revoke", data={"client_id": "first-party", "token": tokens["refresh_token"]})
        refused(nginx.ask(tokens["access_token"]), 401, "invalid_token")

    def test_without_an_answer_nothing_is_let_in(self, behind, reader, tmp_path):
        nowhere = f"http://127.0.0.1:{free_port()}"
        with guarding(tmp_path, behind, nowhere, ("gateway", "secret")) as service:
            response = service.ask(reader["access_token"])
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"

    def test_without_its_own_credentials_neither(self, behind, live_server, reader, tmp_path):
        with guarding(tmp_path, behind, live_server.url, ("gateway", "wrong")) as service:
            assert service.ask(reader["access_token"]).status_code == 503


def test_the_tokens_of_this_test_are_what_they_are_called(live_server, reader):
    """The server itself tells them apart, too."""
    good = reader["access_token"]
    for token in bad_tokens(live_server, good).values():
        live_server.me(token, 401)
    assert altered(good) != good
    live_server.me(good)


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    """Says what Envoy's schema and its rules have against a configuration: nothing, when it is good."""
    asked_for("go")
    folder = tmp_path_factory.mktemp("envoy")
    shutil.copy(ROOT / "tests" / "docs" / "envoy" / "check.go", folder)
    run(program("go"), "mod", "init", "example.org/check", folder=folder)
    run("go", "get", ENVOY_PACKAGE, "google.golang.org/protobuf", folder=folder)
    run("go", "mod", "tidy", folder=folder)
    run("go", "build", "-o", "check", ".", folder=folder)

    def check(configuration):
        text = json.dumps(configuration)
        done = subprocess.run(
            [folder / "check"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stderr

    return check


def test_envoy_knows_the_configuration(envoy, live_server):
    configuration = yaml.safe_load(example("envoy", live_server.url))
    assert envoy(configuration) == ""
    [listener] = configuration["static_resources"]["listeners"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    providers = filters[0]["typed_config"]["providers"]["tokenserver"]
    providers["remote_jwks"]["http_uri"]["cluster"] = ""
    assert "Cluster" in envoy(configuration)
    providers["remote_jwks"]["http_uri"]["clusters"] = "tokenserver"
    assert "clusters" in envoy(configuration)
