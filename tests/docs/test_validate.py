"""Each example of docs/validate.md guards a service of a live server: what is good passes, nothing else does."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.docs.fences import ROOT
from tests.docs.guarded import altered, bad_tokens, example, running, signed
from tests.interop.conftest import unavailable
from tests.live_server import PASSWORD
from tests.ports import free_port

SECONDS = 60
ASKED = set(filter(None, os.environ.get("TOKENSERVER_TEST_VERIFIERS", "").split(",")))
GO_PACKAGES = ("github.com/golang-jwt/jwt/v5@v5.3.1", "github.com/MicahParks/keyfunc/v3@v3.9.1")
ENVOY_PACKAGE = "github.com/envoyproxy/go-control-plane/envoy@v1.36.0"
SPRING_PACKAGES = (
    "org.springframework.security:spring-security-oauth2-jose:7.1.2",
    "org.springframework:spring-web:7.0.10",
    "tools.jackson.core:jackson-databind:3.3.0",
)
JAVA_PACKAGE = "com.nimbusds:nimbus-jose-jwt:10.10"
PYTHON = ["flask", "fastapi", "django"]
OFFLINE = [*PYTHON, "node", "go", "java"]


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


def granian(interface, module, port):
    program = Path(sys.executable).with_name("granian")
    return [program, "--interface", interface, "--port", str(port), f"{module}:app"]


def fastapi(issuer, folder, port, request):
    (folder / "reports.py").write_text(example("fastapi", issuer), encoding="utf-8")
    return granian("asgi", "reports", port)


def django(issuer, folder, port, request):
    own = '\nALLOWED_HOSTS = ["127.0.0.1"]\nROOT_URLCONF = "urls"\nSECRET_KEY = "of the tests"\n'
    (folder / "settings.py").write_text(example("settings", issuer) + own, encoding="utf-8")
    (folder / "views.py").write_text(example("views", issuer), encoding="utf-8")
    urls = "from django.urls import path\nimport views\nurlpatterns = [path('reports', views.reports)]\n"
    (folder / "urls.py").write_text(urls, encoding="utf-8")
    start = "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
    start += "from django.core.wsgi import get_wsgi_application\napp = get_wsgi_application()\n"
    (folder / "project.py").write_text(start, encoding="utf-8")
    return granian("wsgi", "project", port)


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
    libraries(folder, JAVA_PACKAGE)
    return [program("java"), "-cp", "lib/*", "Reports.java"]


def libraries(folder, *packages):
    """Puts these and what they need into `lib`."""
    wanted = ""
    for group, artifact, version in (package.split(":") for package in packages):
        coordinates = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        wanted += f"<dependency>{coordinates}</dependency>"
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>example</groupId><artifactId>reports</artifactId>"
        f"<version>1</version><dependencies>{wanted}</dependencies></project>",
        encoding="utf-8",
    )
    copy = ("dependency:copy-dependencies", "-DoutputDirectory=lib")
    run(program("mvn"), "--quiet", "--batch-mode", *copy, folder=folder)


STARTED = {"flask": flask, "fastapi": fastapi, "django": django, "node": node, "go": go, "java": java}


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


def revoked_token(live_server):
    """An access token whose signature and times are good."""
    tokens = live_server.post("/auth/login", json={"login": "reports-reader", "password": PASSWORD})
    live_server.post("/oauth/revoke", data={"client_id": "first-party", "token": tokens["refresh_token"]})
    live_server.me(tokens["access_token"], 401)
    return tokens["access_token"]


@pytest.mark.parametrize("name", [name for name in OFFLINE if name not in PYTHON])
def test_a_revoked_token_is_good_until_it_expires(services, live_server, reader, name):
    assert services(name).ask(revoked_token(live_server)).status_code == 200


@pytest.mark.parametrize("name", PYTHON)
def test_a_revoked_token_is_refused_some_seconds_later(services, live_server, reader, name):
    service, token = services(name), revoked_token(live_server)
    assert service.ask(reader["access_token"]).status_code == 200
    deadline = time.monotonic() + SECONDS
    while (response := service.ask(token)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused(response, 401, "invalid_token")


@pytest.mark.parametrize("name", ["flask", "node", "java"])
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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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


SPRING = """
public class Check {
    public static void main(String[] tokens) {
        var decoder = new AccessTokens().accessTokens();
        for (var token : tokens) {
            try {
                System.out.println(decoder.decode(token).getSubject());
            } catch (org.springframework.security.oauth2.jwt.JwtException refused) {
                System.out.println("refused");
            }
        }
    }
}
"""


def test_spring(live_server, reader, tmp_path):
    asked_for("java")
    libraries(tmp_path, *SPRING_PACKAGES)
    (tmp_path / "AccessTokens.java").write_text(example("spring", live_server.url), encoding="utf-8")
    (tmp_path / "Check.java").write_text(SPRING, encoding="utf-8")
    run(program("javac"), "-cp", "lib/*", "AccessTokens.java", "Check.java", folder=tmp_path)
    good = reader["access_token"]
    bad = bad_tokens(live_server, good).values()
    said = run(program("java"), "-cp", "lib/*:.", "Check", good, *bad, folder=tmp_path)
    assert said.splitlines() == [live_server.me(good)["id"], *["refused"] * len(bad)]


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
