"""The admin console, as an admin walks it; and what comes of it for somebody else in another browser."""

import json
import re
import secrets
import shlex
import subprocess
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.browser.site import Site
from tests.browser.visitor import Visitor
from tests.live_server import ADMIN_PASSWORD, PASSWORD

CONSOLE = "/admin/console"


def enter(visitor: Visitor, username: str = "admin", password: str = ADMIN_PASSWORD) -> None:
    visitor.open("/admin")
    visitor.sign_in(username, password)
    visitor.page.wait_for_selector("#sign-out")


def name_of(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(3)}"


@pytest.fixture
def admin(browsers: Any) -> Visitor:
    visitor: Visitor = browsers()
    enter(visitor)
    return visitor


def test_a_role_from_its_birth_to_its_effect_in_another_browser(browsers: Any, admin: Visitor, site: Site):
    role, username = name_of("auditor"), name_of("ann")
    user = site.register(username)
    other: Visitor = browsers()
    enter(other, username, PASSWORD)
    assert not other.has("#go-log")
    other.check("console-without-permissions")
    assert other.open(f"{CONSOLE}/log").status == 403
    assert other.text("#lacks") == "logs:read"
    other.check("console-refused")

    admin.check("console-overview")
    admin.page.click("#go-roles")
    admin.check("console-roles")
    admin.page.fill("#name", role)
    admin.page.fill("#description", "Reads the log and the statistics")
    admin.page.click("#create-role")
    assert admin.text("#role") == role
    assert "Created" in admin.text("#done")
    admin.check("console-role")

    admin.open(f"{CONSOLE}/roles?q={role}")
    for permission in ("logs:read", "stats:read"):
        admin.page.check(f'input[name="r:{role}/{permission}"]')
    admin.page.click("#preview")
    assert "Nobody gains or loses anything" in admin.text(".effect")
    admin.page.click("#confirm")
    assert "Saved" in admin.text("#done")

    admin.open(f"{CONSOLE}/users?q={username}")
    admin.check("console-users")
    admin.page.click(f"text={username}")
    admin.check("console-user")
    admin.page.fill("#add", role)
    admin.page.click("#give-role")
    effect = admin.text("#effect")
    assert "1 person gains logs:read." in effect
    assert "live session" in effect
    admin.check("console-dry-run")
    admin.page.click("#confirm")
    assert role in admin.text("#roles")

    # It holds there by the next click.
    other.open(CONSOLE)
    other.page.click("#go-log")
    assert other.has("#rows tr[data-id]")
    assert not other.has("#go-roles")

    admin.open(f"{CONSOLE}/roles?q={role}")
    admin.page.uncheck(f'input[name="r:{role}/logs:read"]')
    admin.page.click("#preview")
    assert "1 person loses logs:read." in admin.text(".effect")
    admin.check("console-roles-dry-run")
    admin.page.click("#confirm")
    assert other.open(f"{CONSOLE}/log").status == 403

    admin.open(f"{CONSOLE}/explain?user={username}&permission=stats:read")
    assert f"{username} may" in admin.text("#decision")
    admin.check("console-explain-allowed")
    admin.open(f"{CONSOLE}/explain?user={username}&permission=keys:write")
    assert f"{username} may not" in admin.text("#decision")
    admin.check("console-explain-denied")

    admin.open(f"{CONSOLE}/users/{user['id']}")
    admin.page.click("#change-status")
    assert "live session" in admin.text("#effect")
    admin.page.click("#confirm")
    assert admin.text("#status") == "disabled"
    other.open(CONSOLE)
    other.page.wait_for_selector("#login-submit")


def age_next_keys(site: Site) -> None:
    """As if the ring had been there for a day: verifiers know the next key."""
    ring = site.server.folder / "keys/ring.json"
    manifest = json.loads(ring.read_text())
    for entry in manifest["entries"]:
        if entry["state"] == "next":
            yesterday = datetime.fromisoformat(entry["published_at"]) - timedelta(days=1)
            entry["created_at"] = entry["published_at"] = yesterday.isoformat()
    aged = ring.with_suffix(".aged")
    aged.write_text(json.dumps(manifest))
    aged.chmod(0o600)
    aged.replace(ring)


def test_a_key_is_rotated_and_found_in_the_log(admin: Visitor, site: Site):
    age_next_keys(site)
    admin.page.click("#go-keys")
    admin.check("console-keys")
    admin.page.click("#rotate")
    admin.page.click("#confirm")
    assert "Rotated" in admin.text("#done")
    admin.check("console-keys-rotated")
    admin.page.click("#go-log")
    admin.page.select_option("#action", "signing_key:rotated")
    admin.page.click('form[role="search"] button')
    row = admin.text("#rows tr[data-id]")
    assert "signing_key:rotated" in row
    assert "success" in row
    admin.check("console-log")


def test_the_log_is_live(admin: Visitor, site: Site):
    username = name_of("bob")
    admin.open(f"{CONSOLE}/log?action=user:created")
    admin.page.check("#live")
    user = site.register(username)
    admin.page.wait_for_selector(f"#rows td:has-text('{user['id']}')")
    admin.check("console-log-live")


def test_a_client_and_its_curl(admin: Visitor, site: Site):
    admin.page.click("#go-clients")
    admin.check("console-clients")
    admin.page.click("#new-client")
    admin.check("console-client-kinds")
    admin.page.click("#kind-service")
    admin.page.fill("#client_name", "Night shift")
    admin.page.fill("#scope", "posts:create nothing:known")
    admin.page.click("#create-client")
    assert "scope" in admin.text("#error")
    admin.check("console-client-refused")
    admin.page.fill("#scope", "posts:create")
    admin.page.click("#create-client")
    secret = admin.text("#client-secret")
    assert secret.startswith("cs_")
    admin.check("console-client-created")
    command = admin.text(".command")
    done = subprocess.run(
        shlex.split(command.replace("\\\n", " ")), capture_output=True, text=True, timeout=60, check=True
    )
    assert re.search(r'"access_token"\s*:', done.stdout), done.stdout
    admin.page.click("#go-on")
    assert secret not in admin.page.content()
    admin.check("console-client")


def test_without_scripts(browsers: Any, site: Site):
    visitor: Visitor = browsers(scripts=False)
    enter(visitor)
    visitor.page.click("#go-stats")
    visitor.check("console-stats")
    visitor.page.click("#go-log")
    assert visitor.has("#rows tr[data-id]")
    assert not visitor.page.locator("#live").is_visible()
    visitor.page.click("#sign-out")
    visitor.page.wait_for_selector("h1")
    visitor.open(CONSOLE)
    visitor.page.wait_for_selector("#login-submit")
