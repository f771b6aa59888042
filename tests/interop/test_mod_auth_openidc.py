"""mod_auth_openidc in Apache, as Debian has them: it protects a folder, and signs out both ways."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.interop.conftest import unavailable
from tests.person import Page, Stuck
from tests.ports import free_port

MODULES = Path("/usr/lib/apache2/modules")
NEEDED = ("mpm_event", "authn_core", "authz_core", "authz_user", "include", "mime", "dir", "auth_openidc")
# `User` counts for root alone.
CONFIGURATION = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
ServerName {origin}
{modules}
User www-data
Group www-data
TypesConfig /dev/null
AddType text/html .shtml
AddOutputFilter INCLUDES .shtml
DirectoryIndex index.shtml
DocumentRoot {folder}/site
<Directory {folder}/site>
  Options +Includes
  Require all granted
</Directory>
OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCCABundlePath {folder}/ca.pem
OIDCClientID {client_id}
OIDCClientSecret {client_secret}
OIDCRedirectURI {origin}/private/callback
OIDCCryptoPassphrase of-the-tests
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCPassClaimsAs environment
<Location /private>
  AuthType openid-connect
  Require claim email:apache-ann@example.org
</Location>
"""
SEEN = (
    """<p id="email"><!--#echo var="OIDC_CLAIM_email" --></p><p id="name"><!--#echo var="OIDC_CLAIM_name" --></p>"""
)
SECONDS = 60


@pytest.fixture(scope="module")
def program():
    program = shutil.which("apache2") or shutil.which("apache2", path="/usr/sbin")
    if program is None or not (MODULES / "mod_auth_openidc.so").exists():
        unavailable("mod_auth_openidc is not tested: apache2 or libapache2-mod-auth-openidc is not installed")
    return program


@pytest.fixture(scope="module")
def origin(provider, program):
    """Where Apache serves `/private/` and `/public.html`."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    registered = provider.client(
        client_name="A folder of Apache",
        grant_types=["authorization_code"],
        response_types=["code"],
        redirect_uris=[f"{origin}/private/callback"],
        post_logout_redirect_uris=[f"{origin}/public.html"],
        backchannel_logout_uri=f"{origin}/private/callback?logout=backchannel",
        backchannel_logout_session_required=True,
        scope="openid profile email",
    )
    folder = Path(tempfile.mkdtemp(prefix="ts-apache-"))
    folder.chmod(0o755)  # its processes are another user's when root starts it
    (folder / "site" / "private").mkdir(parents=True)
    (folder / "site" / "private" / "index.shtml").write_text(SEEN, encoding="utf-8")
    (folder / "site" / "public.html").write_text("public", encoding="utf-8")
    shutil.copy(provider.authority.ca_file, folder / "ca.pem")
    modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in NEEDED)
    configuration = CONFIGURATION.format(
        folder=folder, port=port, origin=origin, modules=modules, issuer=provider.issuer, **registered
    )
    (folder / "apache.conf").write_text(configuration, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.Popen([program, "-f", folder / "apache.conf", "-DFOREGROUND"], env=environment)
    try:
        _wait_until(lambda: _listens(port), folder / "error.log")
        yield origin
    finally:
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(holds, log):
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, log.read_text(errors="replace") if log.exists() else ""
        time.sleep(0.05)


@pytest.fixture(scope="module")
def ann(provider):
    return provider.user("apache-ann", name="Ann of Apache")


def open_folder(person, origin):
    """Signs in where asked."""
    page = person.page(f"{origin}/private/")
    for button in ("login-submit", "consent-allow"):
        if page.form_with(button):
            page = person.press(page, button)
    assert isinstance(page, Page)
    return page


def test_claims_reach_the_application(origin, ann):
    page = open_folder(ann, origin)
    assert page.url == f"{origin}/private/"
    assert '<p id="email">apache-ann@example.org</p><p id="name">Ann of Apache</p>' in page.text


def test_somebody_else_is_kept_out(provider, origin):
    assert open_folder(provider.user("apache-bob"), origin).status == 401


def test_signing_out_here_signs_out_there(provider, origin, ann):
    open_folder(ann, origin)
    home = f"{origin}/public.html"
    page = ann.page(f"{origin}/private/callback?logout={home}")
    assert page.url == home
    assert ann.page(f"{origin}/private/").form_with("login-submit"), "asked again: no session anywhere"


def test_signing_out_there_signs_out_here(provider, origin, ann):
    """By the back channel: nothing in the browser tells Apache."""
    assert open_folder(ann, origin).status == 200
    with pytest.raises(Stuck):  # no client asked for it, so nobody wants them back
        ann.sign_out(f"{provider.issuer}/oauth/logout", origin)
    _wait_until(lambda: ann.page(f"{origin}/private/").form_with("login-submit"), Path("/nonexistent"))
