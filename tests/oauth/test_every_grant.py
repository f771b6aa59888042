"""What holds for every grant: a rule that one of them forgets is the usual flaw of this kind of server (Keycloak
CVE-2026-9792, CVE-2025-14559). A new grant needs a way here to be asked for."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import pytest

from tests.answers import granted, refused
from tests.conftest import ADMIN_PASSWORD, PASSWORD, Api, bearer
from tests.oauth.conftest import CALLBACK, VERIFIER, Browser, Site, claims_of
from tokenserver.clients.metadata import DEVICE_CODE, TOKEN_EXCHANGE, Metadata
from tokenserver.oauth.grants import GRANTS
from tokenserver.rooms import Rooms

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
EVERY = [*GRANTS]
OF_USERS = [each for each in GRANTS if each != "client_credentials"]
APP: dict[str, Any] = {
    "client_name": "App",
    "grant_types": EVERY,
    "response_types": ["code"],
    "redirect_uris": [CALLBACK],
    "scope": ["openid", "posts:create"],
    "audience": ["https://api.example"],
    "token_endpoint_auth_method": "client_secret_post",
    "first_party": True,
    "token_exchange": {"clients": ["*"], "impersonation": True, "delegation": True},
}


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def site(site_of: Callable[..., Site]) -> Site:
    return site_of(**APP)


@pytest.fixture
def form_of(api: Api, rooms: Rooms, browser: Browser, site: Site) -> Callable[[str], dict[str, str]]:
    """A request by this grant that would be granted now, but for its client."""

    def by_password() -> dict[str, Any]:
        return granted(api.token(grant_type="password", username="ann", password=PASSWORD, **site.form))

    def device_code() -> str:
        codes = granted(api.http.post("/oauth/device_authorization", data=site.form))
        session = claims_of(granted(browser.redeem(site, browser.code(site)))["id_token"])
        who = {"session_id": UUID(session["sid"]), "user_id": UUID(session["sub"])}
        assert rooms.collaborators.devices.enter(codes["user_code"], **who)
        rooms.collaborators.devices.approve(codes["user_code"], **who)
        return str(codes["device_code"])

    ways: Mapping[str, Callable[[], dict[str, str]]] = {
        "authorization_code": lambda: {
            "code": browser.code(site),
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
        },
        "client_credentials": dict,
        "password": lambda: {"username": "ann", "password": PASSWORD},
        "refresh_token": lambda: {"refresh_token": by_password()["refresh_token"]},
        DEVICE_CODE: lambda: {"device_code": device_code()},
        TOKEN_EXCHANGE: lambda: {
            "subject_token": by_password()["access_token"],
            "subject_token_type": ACCESS_TOKEN,
        },
    }
    return lambda grant_type: {"grant_type": grant_type} | ways[grant_type]()


@pytest.mark.parametrize("grant_type", EVERY)
def test_registration_client_scope_and_resource(
    api: Api, rooms: Rooms, site: Site, form_of: Callable[[str], dict[str, str]], grant_type: str
):
    """RFC 6749 sections 5.2 and 3.3, RFC 8707 section 2: no refusal spends anything, so that each is followed by a
    success."""
    form = form_of(grant_type)
    refused(api.token(**form | site.form | {"client_secret": "wrong"}), 401, "invalid_client")
    refused(api.token(**form | site.form, resource="https://else.example"), 400, "invalid_target")
    if "scope" in GRANTS[grant_type].parameters:
        for scope in ("nonsense", "posts:create nonsense"):
            refused(api.token(**form | site.form, scope=scope), 400, "invalid_scope")

    def register(*grant_types: str) -> None:
        # Without what may only be registered with the grant.
        kept: dict[str, Any] = {"grant_types": grant_types}
        if "authorization_code" not in grant_types:
            kept["response_types"] = []
        if TOKEN_EXCHANGE not in grant_types:
            kept["token_exchange"] = None
        metadata = Metadata(**APP | kept)
        rooms.feed.change(lambda tx, change: rooms.clients.update(tx, change, "app", metadata))

    others = [each for each in EVERY if each != grant_type]
    register(*others)
    refused(api.token(**form | site.form), 400, "unauthorized_client")
    register(*EVERY)
    answer = granted(api.token(**form | site.form, resource="https://api.example"))
    assert claims_of(answer["access_token"])["aud"] == "https://api.example"
    rooms.feed.change(lambda tx, change: rooms.clients.delete(tx, change, "app"))
    refused(api.token(**form | site.form), 401, "invalid_client")


@pytest.mark.parametrize("grant_type", OF_USERS)
def test_disabled_users_get_nothing(
    api: Api, site: Site, form_of: Callable[[str], dict[str, str]], grant_type: str
):
    """Also not after they were enabled again, by what they were given before."""
    admin = bearer(api.login("admin", ADMIN_PASSWORD)["access_token"])
    user_id = granted(api.me(api.login()["access_token"]))["id"]
    form = form_of(grant_type)
    error = "invalid_request" if grant_type == TOKEN_EXCHANGE else "invalid_grant"
    for status in ("disabled", "active"):
        granted(api.http.put(f"/users/{user_id}/status", json={"status": status}, headers=admin))
        if (grant_type, status) != ("password", "active"):
            refused(api.token(**form | site.form), 400, error)


def test_no_grant_takes_what_another_one_redeems(api: Api, site: Site, form_of: Callable[[str], dict[str, str]]):
    """Keycloak CVE-2026-4282: one store of things to redeem once, for several purposes."""
    redeemed = {"authorization_code": "code", DEVICE_CODE: "device_code", "refresh_token": "refresh_token"}
    forms = {grant_type: form_of(grant_type) for grant_type in redeemed}
    for grant_type, name in redeemed.items():
        for other, its_name in redeemed.items():
            if other != grant_type:
                form = forms[grant_type] | {name: forms[other][its_name]}
                refused(api.token(**form | site.form), 400, "invalid_grant")
    for form in forms.values():
        granted(api.token(**form | site.form))  # none was spent
