"""What is deployed from this repository: image, compose file, certificates, balancer, manifests for Kubernetes.

No container runs here. What can be had without one is real: hadolint, the schemas of Kubernetes, HAProxy, Redis
with TLS, and the server's own opinion of the settings.
"""

import http.server
import importlib.util
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
import time
from configparser import ConfigParser
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import kubernetes_validate
import pytest
import redis
import yaml
from cryptography import x509
from dotenv import dotenv_values

from tests.docs.fences import ROOT
from tests.live_server import free_port
from tests.redis_servers import program_with_tls, unavailable
from tokenserver.cli.workers import FINISH_SECONDS
from tokenserver.config import Settings, environment_name

DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "tokenserver:local"]
NODES = [name for name in OURS if name.startswith("node-")]
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS = [
    each
    for file in MANIFESTS
    if file.name != "kustomization.yaml"
    for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
# Balancers are given so long to notice, requests so long to finish.
ENDING_SECONDS = Settings(env="production").drain_delay + FINISH_SECONDS
OPTIONS = {environment_name(option) for option in fields(Settings)}
PINNED = re.compile(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z-]+)?")
MAKER = DEPLOY / "certificates.py"


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


# The wheel, which is what the image installs

SETUP = ConfigParser(delimiters=("=",))
SETUP.read(ROOT / "setup.cfg")
PACKAGES = [file.parent for file in sorted((ROOT / "tokenserver").rglob("__init__.py"))]
# Sources of what is in the package compiled.
SOURCES = {".po"}


def test_every_file_beside_the_modules_is_in_the_wheel():
    """What is asked for at run time and isn't Python goes by the patterns of its package."""
    wanted = {
        file
        for file in (ROOT / "tokenserver").rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc", *SOURCES}
    }
    assert {file.suffix for file in wanted} >= {".mo", ".bin", ".lua", ".html", ".css", ".js"}
    given = SETUP["options.package_data"]
    for package, patterns in given.items():
        folder = ROOT / package.replace(".", "/")
        assert folder in PACKAGES
        for pattern in patterns.replace("\n", ",").split(","):
            found = set(folder.glob(pattern.strip()))
            assert found, f"{package}: nothing is {pattern}"
            wanted -= found
    assert not wanted


def test_every_module_is_in_the_wheel():
    """Those of folders that are packages, and the migrations, which lie elsewhere."""
    assert {file.parent for file in (ROOT / "tokenserver").rglob("*.py")} == set(PACKAGES)
    data = SETUP["options.data_files"].values()
    given = {file for lines in data for pattern in lines.split() for file in ROOT.glob(pattern)}
    assert given == {
        file for file in (ROOT / "migrations").rglob("*") if file.is_file() and file.suffix in {".py", ".mako"}
    }


# The image


def instructions():
    """Of the last stage: what the image is."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    last = max(place for place, (word, _) in enumerate(lines) if word == "FROM")
    return [(word, " ".join(rest.split())) for word, rest in lines[last:]]


def instruction(word):
    (rest,) = [rest for each, rest in instructions() if each == word]
    return rest


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_a_number_that_isnt_root():
    """Kubernetes can't tell that a name isn't root."""
    assert instruction("USER") == "10001:10001"


def test_signals_reach_the_server_itself():
    assert json.loads(instruction("ENTRYPOINT")) == ["tokenserver"]
    assert json.loads(instruction("CMD")) == ["serve"]
    assert instruction("STOPSIGNAL") == "SIGTERM"


def test_the_base_is_pinned_and_the_same_in_both_stages():
    assert PINNED.fullmatch(re.search(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)[1])
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2


def test_nothing_is_installed_in_the_image_itself():
    """Compilers, package lists and caches stay in the builder."""
    runs = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert not re.search(r"\b(pip|apt|apt-get|curl|wget)\b", runs)
    assert [rest for word, rest in instructions() if word in {"COPY", "ADD"}] == [
        "--from=builder /opt/tokenserver /opt/tokenserver"
    ]


def test_the_image_is_for_production():
    found = dict(re.findall(r"(\w+)=(\S+)", instruction("ENV")))
    assert {name for name in found if name.startswith("TOKENSERVER_")} <= OPTIONS
    assert found["TOKENSERVER_ENV"] == "production"


def test_only_what_is_built_from_enters_the_build():
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    rules = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = {line[1:] for line in rules if line.startswith("!")}
    assert wanted == {"pyproject.toml", "setup.cfg", "README.md", "requirements", "migrations", "tokenserver"}
    assert all((ROOT / name).exists() for name in wanted)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_health_check_of_the_image(live_server, is_there):
    command = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    port = live_server.environment["TOKENSERVER_PORT"] if is_there else str(free_port())
    done = subprocess.run(
        [sys.executable, *command[1:]], env={"TOKENSERVER_PORT": port}, capture_output=True, check=False
    )
    assert (done.returncode == 0) == is_there


# The compose file


@pytest.mark.parametrize("name", SERVICES)
class TestEveryService:
    def test_its_image_is_pinned(self, name):
        image = SERVICES[name]["image"]
        assert image == "tokenserver:local" or PINNED.fullmatch(image), image

    def test_it_waits_for_what_it_needs(self, name):
        waited = SERVICES[name].get("depends_on", {})
        for other, how in waited.items():
            its_kind = {
                "service_healthy": "test" in SERVICES[other].get("healthcheck", {}),
                "service_completed_successfully": "restart" not in SERVICES[other],
                "service_started": "restart" in SERVICES[other],
            }
            assert its_kind[how["condition"]], other

    def test_it_does_without_what_a_profile_brings(self, name):
        """A service without a profile is started by `docker compose up`, and must find what it needs."""
        profiles = set(SERVICES[name].get("profiles", []))
        for other in SERVICES[name].get("depends_on", {}):
            assert set(SERVICES[other].get("profiles", [])) <= profiles, other

    def test_what_stays_is_watched_and_started_again(self, name):
        service = SERVICES[name]
        if "restart" in service:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"]
        else:
            assert any(name in each.get("depends_on", {}) for each in SERVICES.values()), "nobody waits for it"

    def test_it_is_confined(self, name):
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        assert name.startswith("certificates") or "cap_add" not in service
        if name.startswith("certificates"):
            assert service["network_mode"] == "none"

    def test_only_this_machine_reaches_it(self, name):
        ports = SERVICES[name].get("ports", [])
        assert all(port.startswith("127.0.0.1:") for port in ports)
        assert bool(ports) == name.startswith("balancer")

    def test_its_volumes_are_there_and_secrets_are_read_only(self, name):
        for volume in SERVICES[name].get("volumes", []):
            source, _, mode = volume.split(":")[0], *volume.split(":")[1:2], volume.split(":")[2:]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert mode == ["ro"], source
            else:
                assert source in COMPOSE["volumes"]
                is_data = source.startswith("keys") or source.endswith("-data")
                assert is_data or name.startswith("certificates") or mode == ["ro"], source

    def test_no_secret_is_written_into_the_file(self, name):
        environment = SERVICES[name].get("environment", {})
        for variable, value in environment.items():
            if re.search("PASSWORD|SECRET|TOKEN$", variable):
                assert value.startswith(("/run/", "${")), variable
            assert urlsplit(value).password is None

    def test_stores_are_on_networks_without_a_way_out(self, name):
        networks = set(SERVICES[name].get("networks", []))
        if SERVICES[name]["image"].partition(":")[0] in {"redis", "postgres", "cockroachdb/cockroach"}:
            assert all(COMPOSE["networks"][network] == {"internal": True} for network in networks)
        if name.startswith("balancer"):
            assert networks in ({"front"}, {"front-pg"})


@pytest.mark.parametrize("name", OURS)
class TestEveryServiceOfOurs:
    def test_it_can_write_nowhere_else(self, name):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["user"] == ("0:0" if name == "certificates" else "10001:10001")

    def test_its_settings_are_documented(self, name):
        environment = SERVICES[name].get("environment", {})
        assert set(environment) <= OPTIONS


def test_the_redis_has_the_fixes_that_are_known():
    """CVE-2026-81934, of TLS before any password; those before it were mended earlier in each line."""
    images = {service["image"] for service in SERVICES.values() if service["image"].startswith("redis:")}
    (image,) = images
    version = tuple(map(int, re.findall(r"\d+", image)[:3]))
    fixed = ((6, 2, 24), (7, 2, 16), (7, 4, 11), (8, 2, 9), (8, 4, 6), (8, 6, 6), (8, 8, 2), (8, 10, 1))
    assert any(version[:2] == line[:2] and version >= line for line in fixed), image


def test_three_nodes_of_cockroachdb_find_each_other():
    nodes = [name for name in SERVICES if re.fullmatch(r"cockroach-\d", name)]
    assert len(nodes) == 3
    for name in nodes:
        command = SERVICES[name]["command"]
        assert command[0] == "start"
        assert {"--certs-dir=/certs", f"--advertise-addr={name}", f"--join={','.join(nodes)}"} <= set(command)
        assert not any("insecure" in word for word in command)


def test_the_nodes_are_equal():
    for pair in (("node-1", "node-2"), ("node-1-pg", "node-2-pg")):
        one, other = ({k: v for k, v in SERVICES[name].items() if k != "networks"} for name in pair)
        assert one == other


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_time_to_finish_its_requests(name):
    assert seconds(SERVICES[name]["stop_grace_period"]) > ENDING_SECONDS + 5


@pytest.mark.parametrize("is_there", [True, False])
def test_the_health_check_of_a_node(live_server, is_there):
    kind, command = SERVICES["node-1"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    port = live_server.environment["TOKENSERVER_PORT"] if is_there else str(free_port())
    command = command.replace("python ", f"{shlex.quote(sys.executable)} ", 1).replace("8000", port)
    assert "/readyz" in command
    assert (subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0) == is_there


# Certificates


def certificates():
    spec = importlib.util.spec_from_file_location("certificates", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    command = [sys.executable, MAKER, folder, "auth.example.org"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "made server/.env\n" in said
    return folder


def test_no_key_can_be_read_by_others(secrets_folder):
    private = [*secrets_folder.rglob("*.key"), *secrets_folder.rglob(".env"), *secrets_folder.rglob("*.acl")]
    private += [secrets_folder / "balancer" / "server.crt", secrets_folder / "postgresql" / "superuser-password"]
    assert len(private) == 13
    for file in private:
        assert file.stat().st_mode & 0o077 == 0, file
        if os.geteuid() == 0 and file.parent.name != "authorities":
            assert file.stat().st_uid in {99, 999, 10001}


def test_what_is_good_stays(secrets_folder):
    before = {file: file.read_bytes() for file in secrets_folder.rglob("*") if file.is_file()}
    assert certificates().make(secrets_folder, ["auth.example.org"]) == []
    assert {file: file.read_bytes() for file in secrets_folder.rglob("*") if file.is_file()} == before


def test_what_expires_soon_is_renewed_and_so_is_another_name(tmp_path):
    maker = certificates()
    maker.CERTIFICATE_DAYS = maker.RENEWED_DAYS - 1
    maker.make(tmp_path, ["one.example.org"])
    maker = certificates()
    made = maker.make(tmp_path, ["one.example.org"])
    assert "redis/server" in made
    assert "authorities/redis" not in made
    assert maker.make(tmp_path, ["two.example.org"]) == ["balancer/server"]


def test_the_user_of_redis_follows_the_template_and_keeps_its_password(secrets_folder):
    acl_file, dotenv = secrets_folder / "redis" / "users.acl", secrets_folder / "server" / ".env"
    before = acl_file.read_bytes(), dotenv.read_bytes()
    acl_file.write_bytes(before[0].replace(b"+ping", b"+other"))
    assert certificates().make(secrets_folder, ["auth.example.org"]) == ["redis/users.acl"]
    assert (acl_file.read_bytes(), dotenv.read_bytes()) == before


def test_a_lost_authority_is_followed_by_new_certificates(tmp_path):
    maker = certificates()
    maker.make(tmp_path)
    (tmp_path / "authorities" / "redis.crt").unlink()
    made = maker.make(tmp_path)
    assert set(made) == {"authorities/redis", "redis/server", "redis/health", "server/redis-client"}


def handshake(server, client, name):
    """Of two contexts, in memory."""
    wires = [ssl.MemoryBIO() for _ in range(4)]
    ends = [
        client.wrap_bio(wires[0], wires[1], server_hostname=name),
        server.wrap_bio(wires[2], wires[3], server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            wires[2].write(wires[1].read())
            wires[0].write(wires[3].read())
    with suppress(ssl.SSLWantReadError):
        ends[0].read(1)  # TLS 1.3: what the server thinks of the client's certificate comes after


def contexts(folder, server, client):
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / server / "ca.crt")
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.load_cert_chain(folder / server / "server.crt", folder / server / "server.key")
    asking = ssl.create_default_context(cafile=folder / server / "ca.crt")
    asking.load_cert_chain(folder / f"{client}.crt", folder / f"{client}.key")
    return accepting, asking


class TestCertificates:
    @pytest.mark.parametrize(
        ("server", "client"),
        [
            ("redis", "server/redis-client"),
            ("redis", "redis/health"),
            ("postgresql", "postgresql-client/client"),
            ("postgresql", "postgresql-owner/client"),
        ],
    )
    def test_both_sides_are_content(self, secrets_folder, server, client):
        handshake(*contexts(secrets_folder, server, client), server)

    def test_another_name_is_refused(self, secrets_folder):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(*contexts(secrets_folder, "redis", "server/redis-client"), "postgresql")

    @pytest.mark.parametrize("client", ["postgresql-client/client", "redis/server"])
    def test_a_stranger_and_a_server_are_no_clients(self, secrets_folder, client):
        with pytest.raises(ssl.SSLError):
            handshake(*contexts(secrets_folder, "redis", client), "redis")

    def test_the_database_knows_its_users_by_their_common_names(self, secrets_folder):
        for folder, user in (("postgresql-client", "tokenserver"), ("postgresql-owner", "tokenserver_owner")):
            pem = (secrets_folder / folder / "client.crt").read_bytes()
            assert x509.load_pem_x509_certificate(pem).subject.rfc4514_string() == f"CN={user}"
            assert f"CREATE ROLE {user} LOGIN;" in (DEPLOY / "postgresql/initialise.sql").read_text("utf-8")
            assert f"CREATE USER IF NOT EXISTS {user};" in (DEPLOY / "cockroachdb/database.sql").read_text("utf-8")


def made_in(volume, secrets_folder):
    """The names of the files that the one-shot services put into a volume."""
    maker, places = next(
        (name, each.split(":"))
        for name in ("certificates", "certificates-cockroach")
        for each in SERVICES[name]["volumes"]
        if each.split(":")[0] == volume
    )
    place = places[1].removeprefix("/secrets/")
    if maker == "certificates":
        return {file.name for file in (secrets_folder / place).iterdir()}
    script = (DEPLOY / "cockroachdb" / "certificates.sh").read_text(encoding="utf-8")
    (user,) = re.findall(rf"^client (\w+) {place}$", script, re.MULTILINE)
    return {"ca.crt", f"client.{user}.crt", f"client.{user}.key"}


@pytest.mark.parametrize("name", [name for name in OURS if name != "certificates"])
class TestSettings:
    """Of each service, with the `.env` that it finds in its working folder."""

    @pytest.fixture
    def settings(self, name, secrets_folder):
        given = {k: interpolated(v) for k, v in SERVICES[name]["environment"].items()}
        given |= {"TOKENSERVER_ENV": "production"}
        return Settings.load(given, secrets_folder / "server" / ".env")

    def test_production_accepts_them(self, settings):
        assert settings.issuer.startswith("https://localhost:")
        assert settings.trusted_proxies == 1

    def test_both_ends_of_the_database_prove_who_they_are(self, settings, name, secrets_folder):
        url = urlsplit(settings.database_url)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        hosts = (query.get("host") or url.hostname).split(",")
        waited = SERVICES[name]["depends_on"]
        assert all(host in SERVICES and (host in waited or "initialise-cockroach" in waited) for host in hosts)
        assert query["sslmode"] == "verify-full"
        (mounted,) = [v.split(":")[0] for v in SERVICES[name]["volumes"] if v.split(":")[1] == "/run/certificates"]
        files = [Path(query[each]) for each in ("sslrootcert", "sslcert", "sslkey")]
        assert {file.parent for file in files} == {Path("/run/certificates")}
        assert {file.name for file in files} <= made_in(mounted, secrets_folder)
        assert url.username == ("tokenserver_owner" if name.startswith("initialise") else "tokenserver")

    def test_and_of_redis(self, settings, name, secrets_folder):
        url = urlsplit(settings.redis_url)
        assert (url.scheme, url.hostname, url.username) == ("rediss", "redis", "tokenserver")
        assert "server-secrets:/etc/tokenserver:ro" in SERVICES[name]["volumes"]
        for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            file = Path(parse_qs(url.query)[option][0])
            assert file.parent == Path("/etc/tokenserver")
            assert (secrets_folder / "server" / file.name).is_file()


def interpolated(value):
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


@pytest.mark.parametrize("name", ["redis", "redis-pg"])
def test_redis_as_the_compose_file_starts_it(name, secrets_folder, tmp_path):
    """With the paths and the port of this test."""
    port = free_port()
    mounts = {v.split(":")[1]: v.split(":")[0] for v in SERVICES[name]["volumes"]}
    assert mounts["/etc/redis/tls"] == "redis-secrets"
    assert mounts["/etc/redis/redis.conf"] == "./docs/deploy/redis/redis.conf"
    tls, config = str(secrets_folder / "redis"), tmp_path / "redis.conf"
    given = (DEPLOY / "redis" / "redis.conf").read_text(encoding="utf-8")
    config.write_text(given.replace("/etc/redis/tls", tls), encoding="utf-8")
    places = {"/etc/redis/redis.conf": str(config), "/data": str(tmp_path), "0.0.0.0": "127.0.0.1"}
    program, *words = SERVICES[name]["command"]
    assert program == "redis-server"
    words = [places.get(word, word.replace("/etc/redis/tls", tls)) for word in words]
    with started([program_with_tls(), *words, "--tls-port", str(port)], tmp_path / "log") as log:
        url = urlsplit(dotenv_values(secrets_folder / "server" / ".env")["TOKENSERVER_REDIS_URL"])
        here = url._replace(netloc=url.netloc.replace("redis:6379", f"localhost:{port}")).geturl()
        client = redis.Redis.from_url(here.replace("/etc/tokenserver", str(secrets_folder / "server")))
        until(client.ping, log)
        assert client.set("ts:{0}:x", "1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.config_get("*")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("somebody else's")
        kind, check = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        check = check.replace("/etc/redis/tls", tls).replace("redis-cli ", f"redis-cli -p {port} ")
        assert subprocess.run(["sh", "-c", check], capture_output=True, check=False).returncode == 0
        check = check.replace("--user health", "--user tokenserver")
        assert subprocess.run(["sh", "-c", check], capture_output=True, check=False).returncode != 0


@contextmanager
def started(command, log):
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)


def until(true, log, patience=30):
    deadline = time.monotonic() + patience
    while True:
        with suppress(redis.RedisError, httpx.TransportError):
            if true():
                return
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)


# The balancer


class Node(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, and whether it is ready."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = 200 if self.path != "/readyz" or self.server.is_ready else 503
        body = json.dumps({"node": self.server.name, "headers": list(self.headers.items())}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Balancer:
    def __init__(self, url, context, nodes, log):
        self.nodes = nodes
        self.log = log
        self.http = httpx.Client(base_url=url, verify=context, trust_env=False, timeout=30)

    def answered_by(self, tries=8):
        return {self.http.get("/oauth/token").json().get("node") for _ in range(tries)}


@pytest.fixture(scope="module")
def balancer(secrets_folder, tmp_path_factory):
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        unavailable("the balancer is not tested: there is no haproxy")
    folder = tmp_path_factory.mktemp("balancer")
    with ExitStack() as stack:
        nodes = [stack.enter_context(node(f"node-{number}")) for number in (1, 2)]
        port = free_port()
        text = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
        for each in nodes:
            text, count = re.subn(rf"{each.name}:8000", f"127.0.0.1:{each.server_address[1]}", text)
            assert count == 2
        text, count = re.subn(r"bind :8443", f"bind 127.0.0.1:{port}", text)
        assert count == 1
        text = text.replace("/run/certificates", str(secrets_folder / "balancer"))
        text = text.replace("127.0.0.1:8404", f"127.0.0.1:{free_port()}")
        config = folder / "haproxy.cfg"
        config.write_text(text, encoding="utf-8")
        done = subprocess.run([haproxy, "-c", "-f", config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr
        log = stack.enter_context(started([haproxy, "-db", "-f", str(config)], folder / "log"))
        context = ssl.create_default_context(cafile=secrets_folder / "balancer" / "ca.crt")
        made = Balancer(f"https://localhost:{port}", context, nodes, log)
        stack.callback(made.http.close)
        until(lambda: made.answered_by() == {"node-1", "node-2"}, log)
        yield made


@contextmanager
def node(name, port=0):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Node)
    server.name, server.is_ready, server.daemon_threads = name, True, True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class TestBalancer:
    def test_the_nodes_hear_the_clients_address_alone(self, balancer):
        said = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Forwarded-Proto": "http"}
        headers = balancer.http.get("/oauth/token", headers=said).json()["headers"]
        heard = [(name.lower(), value) for name, value in headers if "forwarded" in name.lower()]
        assert sorted(heard) == [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")]

    @pytest.mark.parametrize("path", ["/metrics", "/readyz", "/healthz"])
    def test_the_public_sees_nothing_of_operations(self, balancer, path):
        assert balancer.http.get(path).status_code == 404

    def test_queries_are_not_logged(self, balancer):
        balancer.http.get("/oauth/authorize?state=secret-of-the-query")
        until(lambda: "/oauth/authorize" in balancer.log.read_text(errors="replace"), balancer.log)
        assert "secret-of-the-query" not in balancer.log.read_text(errors="replace")

    def test_one_that_is_not_ready_gets_nothing(self, balancer):
        balancer.nodes[0].is_ready = False
        until(lambda: balancer.answered_by() == {"node-2"}, balancer.log)
        balancer.nodes[0].is_ready = True
        until(lambda: balancer.answered_by() == {"node-1", "node-2"}, balancer.log)

    def test_when_none_is_ready_they_answer_themselves(self, balancer):
        """Such as with the keys, or with 503 and the reason."""
        for each in balancer.nodes:
            each.is_ready = False
        try:
            until(lambda: "no server available" in balancer.log.read_text(errors="replace"), balancer.log)
            assert balancer.answered_by() == {"node-1", "node-2"}
        finally:
            for each in balancer.nodes:
                each.is_ready = True

    def test_without_nodes_clients_hear_when_to_come_back(self, balancer):
        """Last: the nodes are gone then."""
        for each in balancer.nodes:
            each.shutdown()
            each.server_close()
        until(lambda: balancer.http.get("/oauth/token").status_code == 503, balancer.log)
        response = balancer.http.get("/oauth/token")
        assert response.headers["Retry-After"] == "1"
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["status"] == 503


# Kubernetes


def named(kind):
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


def pods():
    for each in OBJECTS:
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            yield each["metadata"]["name"], template


PODS = dict(pods())
SERVER = named("Deployment")["tokenserver"]
SERVER_POD = SERVER["spec"]["template"]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("thing", OBJECTS, ids=lambda each: f"{each['kind']}/{each['metadata']['name']}")
def test_the_schemas_of_kubernetes_accept(thing, version):
    kubernetes_validate.validate(thing, version, strict=True)


def test_kustomize_takes_every_file():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text("utf-8"))
    others = {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == {file.name for file in MANIFESTS} - others
    (image,) = kustomization["images"]
    assert image["newTag"] == re.search(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE)[1]
    images = {container["image"] for pod in PODS.values() for container in pod["spec"]["containers"]}
    assert images == {image["name"]}


def test_the_example_of_secrets_holds_none():
    assert len(named("Secret")) == 3
    for secret in named("Secret").values():
        assert set(secret["stringData"].values()) == {""}
        assert "data" not in secret


@pytest.mark.parametrize("name", PODS)
class TestEveryPod:
    def test_it_is_restricted(self, name):
        spec = PODS[name]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" == "10001:10001"
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]["memory"]
            assert container["resources"]["limits"]["memory"]

    def test_what_it_names_is_there(self, name):
        spec = PODS[name]["spec"]
        assert spec["serviceAccountName"] in named("ServiceAccount")
        volumes = {each["name"]: each for each in spec["volumes"]}
        for each in volumes.values():
            if "secret" in each:
                assert each["secret"]["secretName"] in named("Secret")
                assert each["secret"]["defaultMode"] == 0o440  # all that libpq lets root's keys be
            if "persistentVolumeClaim" in each:
                assert each["persistentVolumeClaim"]["claimName"] in named("PersistentVolumeClaim")
        mounted = [mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]]
        assert sorted(mounted) == sorted(volumes)

    def test_services_dont_become_settings(self, name):
        """A Service of this name would put TOKENSERVER_PORT=tcp://… into the environment."""
        assert PODS[name]["spec"]["enableServiceLinks"] is False

    def test_its_settings_are_accepted(self, name):
        (container,) = PODS[name]["spec"]["containers"]
        given = {}
        for each in container.get("envFrom", []):
            given |= named("ConfigMap")[each["configMapRef"]["name"]]["data"]
        if name == "tokenserver-keys-backup":
            assert given == {}
            return
        assert set(given) <= OPTIONS
        line = re.search(
            r"^# +(TOKENSERVER_REDIS_URL)=(\S+)$",
            (DEPLOY / "kubernetes" / "secret.example.yaml").read_text("utf-8"),
            re.MULTILINE,
        )
        settings = Settings.load(given | {line[1]: line[2]}, Path(os.devnull))
        assert settings.env == "production"
        assert "sslmode=verify-full" in settings.database_url
        assert settings.redis_url.startswith("rediss://")
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        sources = {each["name"]: each.get("secret", {}).get("secretName") for each in PODS[name]["spec"]["volumes"]}
        urls = f"{settings.database_url}&{settings.redis_url}"
        files = [Path(path) for path in re.findall(r"(?:ssl\w+)=(/[^&]+)", urls)]
        assert len(files) == 6
        for file in files:
            assert file.name in named("Secret")[sources[mounts[str(file.parent)]]]["stringData"]
        assert str(settings.keys_dir.parent) in mounts


def test_the_probes_hit_paths_of_the_server(live_server):
    (container,) = SERVER_POD["spec"]["containers"]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    for path in set(paths.values()):
        assert httpx.get(live_server.url + path, trust_env=False, timeout=30).status_code == 200
    port = named("ConfigMap")["tokenserver"]["data"]["TOKENSERVER_PORT"]
    assert container["ports"] == [{"name": "http", "containerPort": int(port)}]


def test_a_pod_has_time_to_finish_its_requests():
    (container,) = SERVER_POD["spec"]["containers"]
    sleep = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep[0] == "sleep"
    assert SERVER_POD["spec"]["terminationGracePeriodSeconds"] >= int(sleep[1]) + ENDING_SECONDS + 5


def test_one_pod_at_least_goes_on():
    assert SERVER["spec"]["replicas"] >= 2
    assert SERVER["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert named("PodDisruptionBudget")["tokenserver"]["spec"]["minAvailable"] >= 1


def test_selectors_select_the_servers_and_not_the_jobs():
    labels = {name: pod["metadata"]["labels"].items() for name, pod in PODS.items()}
    selectors = [
        SERVER["spec"]["selector"]["matchLabels"],
        named("Service")["tokenserver"]["spec"]["selector"],
        named("PodDisruptionBudget")["tokenserver"]["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in SERVER_POD["spec"]["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert {name for name in PODS if selector.items() <= labels[name]} == {"tokenserver"}
    policy = named("NetworkPolicy")["tokenserver"]["spec"]["podSelector"]["matchLabels"]
    assert all(policy.items() <= each for each in labels.values())


def test_nodes_are_reached_through_the_ingress_alone():
    (rule,) = named("NetworkPolicy")["tokenserver"]["spec"]["ingress"]
    assert len(rule["from"]) == 1
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_all_pods_share_a_ring_that_they_can_write():
    assert named("PersistentVolumeClaim")["tokenserver-keys"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("tokenserver", "tokenserver-migration"):
        (mount,) = [m for m in PODS[name]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "keys"]
        assert not mount.get("readOnly")


def test_the_backup_is_of_one_moment_and_can_be_restored(tmp_path):
    """The script of the CronJob, on folders of this test."""
    ring, backup = tmp_path / "keys" / "ring", tmp_path / "backup"
    ring.mkdir(parents=True, mode=0o700)
    backup.mkdir()
    (ring / "ring.json").write_text("{}")
    (ring / ".lock").touch()
    for number in range(31):
        (backup / f"ring-20250101T0000{number:02}Z.tar.gz").touch()
    shell, flags, script = PODS["tokenserver-keys-backup"]["spec"]["containers"][0]["command"]
    script = script.replace("/keys", str(tmp_path / "keys")).replace("/backup", str(backup))
    subprocess.run([shell, flags, script], check=True, timeout=60)
    kept = sorted(file.name for file in backup.iterdir())
    assert len(kept) == 30
    assert kept[-1] > "ring-20250102"
    assert (backup / kept[-1]).stat().st_mode & 0o077 == 0
    names = subprocess.run(
        ["tar", "--list", "--file", backup / kept[-1]], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"ring/ring.json", "ring/.lock"} <= set(names)
