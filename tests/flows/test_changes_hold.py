"""A change of rights holds from the next request on: in every process, and in the workers of a running server."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.answers import granted
from tests.conftest import ADMIN_PASSWORD, bearer

PROCESSES = 3


def changes(ann):
    """Each takes `keys:read` from ann, who has it through the role `ops`; and the status that she gets then."""
    return {
        "roles": ("PUT", f"/users/{ann}/roles", {"roles": ["user"]}, 403),
        "status": ("PUT", f"/users/{ann}/status", {"status": "disabled"}, 401),
        "permissions of the role": ("PUT", "/roles/ops/permissions", {"permissions": ["logs:read"]}, 403),
    }


@pytest.mark.parametrize("which", ["roles", "status", "permissions of the role"])
def test_in_every_process(apps, api_of, which):
    apis = [api_of(apps()) for _ in range(PROCESSES)]
    first, last = apis[0], apis[-1]
    ann = first.register()["id"]
    admin = bearer(first.login("admin", ADMIN_PASSWORD)["access_token"])
    granted(first.http.post("/roles", json={"name": "ops", "permissions": ["keys:read"]}, headers=admin), 201)
    granted(first.http.put(f"/users/{ann}/roles", json={"roles": ["user", "ops"]}, headers=admin))
    token = bearer(last.login()["access_token"])
    assert [api.http.get("/admin/keys", headers=token).status_code for api in apis] == [200] * PROCESSES

    method, path, body, status = changes(ann)[which]
    granted(last.http.open(path, method=method, json=body, headers=admin))
    assert [api.http.get("/admin/keys", headers=token).status_code for api in apis] == [status] * PROCESSES


def test_what_is_given_holds_from_the_next_token_on(apps, api_of):
    """The token's scope is what it was; the roles that the server shows are new at once."""
    one, other = api_of(apps()), api_of(apps())
    tokens = one.signed_in()
    ann = one.me(tokens["access_token"]).json["id"]
    admin = bearer(other.login("admin", ADMIN_PASSWORD)["access_token"])
    granted(other.http.put(f"/users/{ann}/roles", json={"roles": ["moderator"]}, headers=admin))
    assert one.me(tokens["access_token"]).json["roles"] == ["moderator"]
    fresh = one.refresh(tokens["refresh_token"]).json
    assert "posts:delete:any" in fresh["scope"].split()


def test_in_both_workers_of_a_running_server(live_server):
    def at_once(path, token):
        """Over connections of their own, which the workers share."""

        def get(_):
            return httpx.get(live_server.url + path, headers=bearer(token), timeout=30, trust_env=False).status_code

        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(get, range(24)))

    admin_token = live_server.post("/auth/login", json={"login": "admin", "password": ADMIN_PASSWORD})[
        "access_token"
    ]
    admin = bearer(admin_token)
    live_server.signed_in("dora")
    http = httpx.Client(base_url=live_server.url, headers=admin, timeout=30, trust_env=False)
    dora = http.get("/users?q=dora").json()["items"][0]["id"]
    assert http.post("/roles", json={"name": "ops", "permissions": ["keys:read"]}).status_code == 201
    assert http.put(f"/users/{dora}/roles", json={"roles": ["ops"]}).status_code == 200
    body = {"login": "dora", "password": "correct horse 7 battery"}
    token = live_server.post("/auth/login", json=body)["access_token"]
    assert at_once("/admin/keys", token) == {200}
    assert http.put("/roles/ops/permissions", json={"permissions": []}).status_code == 200
    assert at_once("/admin/keys", token) == {403}
    assert http.put("/roles/ops/permissions", json={"permissions": ["keys:read"]}).status_code == 200
    assert at_once("/admin/keys", token) == {200}
    assert http.put(f"/users/{dora}/status", json={"status": "disabled"}).status_code == 200
    assert at_once("/admin/keys", token) == {401}
    http.close()
