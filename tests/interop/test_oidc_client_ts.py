"""oidc-client-ts in Chromium: a public client whose pages do all by script."""

import pytest

from tests.chromium import started
from tests.interop import spa
from tests.person import PASSWORD
from tests.tls_front import listen

SECONDS = 60


@pytest.fixture(scope="module")
def app(provider, node_folder):
    """The origin of the application."""
    library = node_folder / "node_modules" / "oidc-client-ts" / "dist" / "browser" / "oidc-client-ts.min.js"
    listener, origin = listen()
    with spa.serving(provider.certificate, listener, library.read_bytes()):
        yield origin


@pytest.fixture(scope="module")
def context(provider):
    # Of our certificate's key alone; whatever else is wrong with a certificate is an error.
    trust = f"--ignore-certificate-errors-spki-list={provider.certificate.key_hash}"
    with started("oidc-client-ts is not tested", trust) as browser:
        context = browser.new_context()
        context.set_default_timeout(SECONDS * 1000)
        yield context


@pytest.fixture
def said(context):
    """What the console of any page says that is no information."""
    lines = []

    def listen_to(message):
        if message.type in {"error", "warning"}:
            lines.append(message.text)

    context.on("console", listen_to)
    context.on("weberror", lambda error: lines.append(str(error.error)))
    yield lines
    context.remove_listener("console", listen_to)


def test_the_whole_story(provider, app, context, said):
    registered = provider.client(
        client_name="A single page",
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        redirect_uris=[f"{app}/cb", f"{app}/silent"],
        post_logout_redirect_uris=[f"{app}/"],
        token_endpoint_auth_method="none",
        scope="openid profile email",
    )
    provider.user("spa-ann", name="Ann of the page")
    settings = {
        "authority": provider.issuer,
        "client_id": registered["client_id"],
        "redirect_uri": f"{app}/cb",
        "silent_redirect_uri": f"{app}/silent",
        "post_logout_redirect_uri": f"{app}/",
        "scope": "openid profile email",
        "loadUserInfo": True,
        "automaticSilentRenew": False,
        "monitorSession": False,
        "revokeTokensOnSignout": True,
    }
    start = "settings => { window.manager = new oidc.UserManager(settings) }"
    page = context.new_page()
    page.goto(f"{app}/")
    page.evaluate(start, settings)
    page.evaluate("void manager.signinRedirect({state: {at: 'home'}})")
    page.fill("#username", "spa-ann")
    page.fill("#password", PASSWORD)
    page.click("#login-submit")
    page.click("#consent-allow")
    page.wait_for_url(f"{app}/cb?**")

    page.evaluate(start, settings)
    user = page.evaluate("manager.signinCallback().then(user => ({...user}))")
    assert user["profile"]["iss"] == provider.issuer
    assert user["profile"]["email"] == "spa-ann@example.org"
    assert user["profile"]["name"] == "Ann of the page"
    assert user["refresh_token"]

    renewed = page.evaluate("manager.signinSilent().then(user => ({...user}))")
    assert renewed["profile"]["sub"] == user["profile"]["sub"]
    assert renewed["refresh_token"] != user["refresh_token"]
    assert renewed["access_token"] != user["access_token"]

    # Without a refresh token: prompt=none in a hidden frame.
    page.evaluate("manager.getUser().then(user => { delete user.refresh_token; return manager.storeUser(user) })")
    framed = page.evaluate("manager.signinSilent().then(user => ({...user}))")
    assert framed["profile"]["sid"] == user["profile"]["sid"]
    assert framed["access_token"] not in {user["access_token"], renewed["access_token"]}

    # A browser keeps `__Host-` cookies only as they must be: Secure, for this host alone and the path `/`.
    kept = {cookie["name"]: cookie for cookie in context.cookies(provider.issuer)}
    assert kept.keys() >= {"__Host-session", "__Host-browser"}
    assert all(name.startswith("__Host-") for name in kept)
    assert kept["__Host-session"]["httpOnly"]
    assert kept["__Host-session"]["sameSite"] == "Lax"

    page.evaluate("void manager.signoutRedirect({state: 'bye'})")
    page.wait_for_url(f"{app}/?**")
    page.evaluate(start, settings)
    assert page.evaluate("manager.signoutCallback().then(answer => answer.error)") is None
    refused = page.evaluate("manager.signinSilent().then(() => null, error => error.error)")
    assert refused == "login_required"
    assert said == []
