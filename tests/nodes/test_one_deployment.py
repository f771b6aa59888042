"""What happens at one node holds at the other from the next request on, and what they both do is done once."""

import json
import os
import signal
import time
from base64 import urlsafe_b64decode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, Event
from urllib.parse import urlencode

import pytest
import sqlalchemy

from tests.conftest import bearer
from tests.live_server import PASSWORD
from tests.nodes.balancing import PAUSE, Balancer, HonestClient, readiness
from tests.nodes.conftest import EVERY_WORKER, age_keys, refresh, request, statuses, wait_until
from tests.oauth.conftest import CALLBACK, CHALLENGE, VERIFIER
from tests.person import Person, Stuck
from tokenserver.config import Settings

# Each is "bob" to who compares names.
SPELLINGS = ("bob", "BOB", "Bob", "ｂｏｂ", "ＢＯＢ", "ᵇᵒᵇ", "ⓑⓞⓑ", "𝐛𝐨𝐛", "𝕭𝕺𝕭", " bob ")


@pytest.fixture
def sql(nodes):
    engine = sqlalchemy.create_engine(
        Settings(database_url=nodes[0].environment["TOKENSERVER_DATABASE_URL"]).sqlalchemy_url
    )

    def ask(query, **parameters):
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.text(query), parameters).all()

    yield ask
    engine.dispose()


def id_of(node, admin, username):
    found = request(node, "GET", f"/users?q={username}", headers=admin).json()["items"]
    return next(user["id"] for user in found if user["username"] == username)


def at_once(*calls):
    start = Barrier(len(calls))

    def run(call):
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


# Rights and revocations


def test_whoever_is_demoted_or_disabled_is_refused_at_once(nodes, admin):
    """E40. The token lives for minutes yet; the promise is the next request, in every process."""
    here, there = nodes
    token = here.signed_in("dora")["access_token"]
    dora = id_of(there, admin, "dora")
    role = {"name": "keykeeper", "permissions": ["keys:read"]}
    assert request(here, "POST", "/roles", json=role, headers=admin).status_code == 201
    given = {"roles": ["user", "keykeeper"]}
    assert request(here, "PUT", f"/users/{dora}/roles", json=given, headers=admin).status_code == 200
    tokens = there.post("/auth/login", json={"login": "dora", "password": PASSWORD})
    token = tokens["access_token"]
    assert [statuses(node, "/admin/keys", token) for node in nodes] == [{200}, {200}]

    for node, other, permissions, status in ((here, there, [], 403), (there, here, ["keys:read"], 200)):
        body = {"permissions": permissions}
        changed = request(node, "PUT", "/roles/keykeeper/permissions", json=body, headers=admin)
        assert changed.status_code == 200
        assert statuses(other, "/admin/keys", token) == {status}
    demoted = request(here, "PUT", f"/users/{dora}/roles", json={"roles": ["user"]}, headers=admin)
    assert demoted.status_code == 200
    assert statuses(there, "/admin/keys", token) == {403}
    disabled = request(there, "PUT", f"/users/{dora}/status", json={"status": "disabled"}, headers=admin)
    assert disabled.status_code == 200
    assert statuses(here, "/users/me", token) == {401}
    assert refresh(here, tokens["refresh_token"]).status_code == 400


def test_what_is_revoked_at_one_node_is_dead_at_the_other(nodes):
    here, there = nodes
    first = here.signed_in("eli")
    second, third = (there.post("/auth/login", json={"login": "eli", "password": PASSWORD}) for _ in range(2))
    assert statuses(there, "/users/me", first["access_token"]) == {200}
    assert request(here, "POST", "/auth/logout", headers=bearer(first["access_token"])).status_code == 204
    assert statuses(there, "/users/me", first["access_token"]) == {401}
    assert refresh(there, first["refresh_token"]).status_code == 400

    form = {"token": second["refresh_token"], "client_id": "first-party"}
    assert request(there, "POST", "/oauth/revoke", data=form).status_code == 200
    assert statuses(here, "/users/me", second["access_token"]) == {401}
    # By the command, on either node.
    assert there.run("session", "revoke", "--user", "eli") == "1 ended\n"
    assert statuses(here, "/users/me", third["access_token"]) == {401}
    assert refresh(here, third["refresh_token"]).status_code == 400


def test_key_made_for_a_client_signs_and_verifies_at_the_other_node_at_once(nodes, admin):
    here, there = nodes
    metadata = {
        "client_name": "meter", "grant_types": ["client_credentials"], "scope": "tokens:introspect",
        "access_token_signed_response_alg": "PS256",
    }  # fmt: skip
    made = request(here, "POST", "/clients", json=metadata, headers=admin).json()
    secret = (made["client_id"], made["client_secret"])

    def granted(node):
        return request(node, "POST", "/oauth/token", auth=secret, data={"grant_type": "client_credentials"}).json()

    token = granted(here)["access_token"]
    sets = [request(there, "GET", "/.well-known/jwks.json").json()["keys"] for _ in range(EVERY_WORKER)]
    assert all(kid_of(token) in {key["kid"] for key in keys} for keys in sets)
    form = {"token": token}
    known = [
        request(there, "POST", "/oauth/introspect", auth=secret, data=form).json() for _ in range(EVERY_WORKER)
    ]
    assert all(each["active"] for each in known)
    answers = at_once(*[partial(granted, there)] * EVERY_WORKER)
    assert all("access_token" in answer for answer in answers)


@pytest.mark.parametrize("way", ["roles", "status"])
def test_two_admins_remove_each_other(nodes, admin, way):
    """E41: at two nodes, at the same moment; somebody who can manage roles is left."""
    names = (f"first-{way}", f"second-{way}")
    for name in names:
        nodes[0].signed_in(name)
    ids = [id_of(nodes[0], admin, name) for name in names]
    root = id_of(nodes[0], admin, "admin")

    def give(user_id, roles, headers):
        changed = request(nodes[0], "PUT", f"/users/{user_id}/roles", json={"roles": roles}, headers=headers)
        assert changed.status_code == 200, changed.text

    for user_id in ids:
        give(user_id, ["admin"], admin)
    tokens = [
        bearer(nodes[0].post("/auth/login", json={"login": name, "password": PASSWORD})["access_token"])
        for name in names
    ]
    give(root, ["user"], tokens[0])

    def remove(me):
        path, body = ("roles", {"roles": ["user"]}) if way == "roles" else ("status", {"status": "disabled"})
        return request(nodes[me], "PUT", f"/users/{ids[1 - me]}/{path}", json=body, headers=tokens[me]).status_code

    answers = at_once(lambda: remove(0), lambda: remove(1))
    assert 200 in answers
    assert max(answers) in {401, 403, 409}
    left = bearer(
        nodes[1].post("/auth/login", json={"login": names[answers.index(200)], "password": PASSWORD})[
            "access_token"
        ]
    )
    give(root, ["admin"], left)
    for user_id in ids:
        request(nodes[0], "PUT", f"/users/{user_id}/roles", json={"roles": ["user"]}, headers=admin)


def test_a_role_edited_at_two_nodes_at_once(nodes, admin, sql):
    """E41: of two edits one is the last, whole; given and deleted at once it is either held or gone."""
    for number in range(3):
        name = f"shared{number}"
        role = {"name": name, "permissions": ["logs:read"]}
        assert request(nodes[0], "POST", "/roles", json=role, headers=admin).status_code == 201
        wanted = (["keys:read", "users:list"], ["stats:read"])

        def edit(me, name=name, wanted=wanted):
            body = {"permissions": wanted[me]}
            return request(nodes[me], "PUT", f"/roles/{name}/permissions", json=body, headers=admin).status_code

        assert at_once(lambda edit=edit: edit(0), lambda edit=edit: edit(1)) == [200, 200]
        for node in nodes:
            found = {r["name"]: r["permissions"] for r in _roles(node, admin)}
            assert sorted(found[name]) in [sorted(each) for each in wanted]
        root = id_of(nodes[0], admin, "admin")

        def give(name=name, root=root):
            body = {"roles": ["admin", name]}
            return request(nodes[0], "PUT", f"/users/{root}/roles", json=body, headers=admin).status_code

        def delete(name=name):
            return request(nodes[1], "DELETE", f"/roles/{name}", headers=admin).status_code

        given, deleted = at_once(give, delete)
        assert (given, deleted) in {(200, 409), (422, 204)}
        held = sql(
            "SELECT count(*) FROM role_assignments a JOIN roles r ON r.id = a.role_id WHERE r.name = :n", n=name
        )
        assert held == [(int(given == 200),)]
        assert sql("SELECT count(*) FROM roles WHERE name = :n", n=name) == [(int(deleted == 409),)]
        body = {"roles": ["admin"]}
        assert request(nodes[1], "PUT", f"/users/{root}/roles", json=body, headers=admin).status_code == 200


def _roles(node, admin):
    return request(node, "GET", "/roles?limit=100", headers=admin).json()["items"]


def test_one_name_registered_50_times_at_two_nodes(nodes, sql):
    """E42."""

    def register(number):
        body = {
            "username": SPELLINGS[number % len(SPELLINGS)],
            "email": f"bob{number}@example.org",
            "password": PASSWORD,
        }
        while True:
            answer = request(nodes[number % 2], "POST", "/auth/register", json=body)
            # The queue of the password hashes, the limit of registrations from one network.
            if answer.status_code not in {503, 429}:
                return answer.status_code, answer.json().get("code")
            time.sleep(int(answer.headers["Retry-After"]) / 4)

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(register, range(50)))
    assert answers == {(201, None): 1, (409, "username_taken"): 49}
    assert sql("SELECT count(*) FROM users WHERE email LIKE 'bob%@example.org'") == [(1,)]


def test_wrong_passwords_have_one_budget(nodes):
    """20 for an account at once, then one in 36 minutes, over both nodes."""
    nodes[0].signed_in("victor")

    def guess(number):
        while True:
            credentials = {"login": "victor", "password": f"wrong horse {number}"}
            answer = request(nodes[number % 2], "POST", "/auth/login", json=credentials)
            if answer.status_code != 503:
                return answer.status_code
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(guess, range(44)))
    assert answers == {401: 20, 429: 24}


def test_no_code_for_a_client_that_is_deleted_meanwhile(nodes, admin, sql):
    """E43: people consent at one node while the client is deleted at the other."""
    people = []
    for number in range(3):
        nodes[0].post("/auth/register", 201, json=_registration(f"pia{number}"))
        people.append(Person.at(nodes[0].url, f"pia{number}"))
    first = _public_client(nodes[0], admin)
    for person in people:  # from here on they are signed in
        assert person.authorize(_authorization(nodes[0], first), CALLBACK).parameters["code"]

    for turn in range(3):
        client_id = _public_client(nodes[0], admin)
        url = _authorization(nodes[0], client_id)
        asked = [(person, person.visit(url, CALLBACK)) for person in people]

        def consent(person, page):
            try:
                found = person.walk(page, CALLBACK, ("consent-allow",))
            except Stuck as error:
                return error.page.status, None
            return 303, found.parameters.get("code")

        def delete(client_id=client_id, turn=turn):
            time.sleep(0.03 * turn)
            path = f"/clients/{client_id}"
            return request(nodes[1], "DELETE", path, headers=admin).status_code, None

        *answers, deleted = at_once(*(partial(consent, *each) for each in asked), delete)
        assert deleted == (204, None)
        assert {status for status, _ in answers} <= {303, 400, 401, 403, 404}, answers
        for _, code in answers:
            if code:
                form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
                form |= {"client_id": client_id, "code_verifier": VERIFIER}
                assert {request(node, "POST", "/oauth/token", data=form).status_code for node in nodes} == {401}
        for table in ("authorization_codes", "consents", "session_clients", "refresh_families"):
            assert sql(f"SELECT count(*) FROM {table} WHERE client_id = :id", id=client_id) == [(0,)], table


def _registration(name):
    return {"username": name, "email": f"{name}@example.org", "password": PASSWORD}


def _public_client(node, admin):
    metadata = {
        "client_name": "A passing client",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "scope": "openid posts:create",
        "token_endpoint_auth_method": "none",
    }
    created = request(node, "POST", "/clients", json=metadata, headers=admin)
    assert created.status_code == 201, created.text
    return created.json()["client_id"]


def _authorization(node, client_id):
    asked = {
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid posts:create",
        "state": "the state",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return f"{node.url}/oauth/authorize?{urlencode(asked)}"


# Keys


def kid_of(token):
    header = token.split(".")[0]
    return json.loads(urlsafe_b64decode(header + "=="))["kid"]


def test_a_key_rotated_at_one_node_signs_at_both(nodes, admin):
    """By command, with somebody refreshing all the while whose every token is good at the other node."""
    here, there = nodes
    refused, stopped = [], Event()
    tokens = here.signed_in("iris")

    def go_on():
        token = tokens["refresh_token"]
        for turn in range(100_000):
            if stopped.is_set():
                return turn
            answer = refresh(nodes[turn % 2], token)
            if answer.status_code != 200:
                refused.append(answer.text)
                return turn
            token = answer.json()["refresh_token"]
            seen = request(nodes[1 - turn % 2], "GET", "/users/me", headers=bearer(answer.json()["access_token"]))
            if seen.status_code != 200:
                refused.append(seen.text)
            stopped.wait(PAUSE)
        raise AssertionError("unreachable")

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(go_on)
        try:
            age_keys(here, "next")
            rotated = json.loads(here.run("keys", "rotate", "--alg", "EdDSA", "--json"))
            fresh, old = rotated["activated"][0]["kid"], rotated["replaced"][0]
            client = here.create_client("rotating", "client_credentials", scope="posts:create")

            def signs(node):
                form = {"grant_type": "client_credentials"}
                answers = (
                    request(node, "POST", "/oauth/token", data=form, auth=client) for _ in range(EVERY_WORKER)
                )
                return {kid_of(answer.json()["access_token"]) for answer in answers}

            wait_until(lambda: all(signs(node) == {fresh} for node in nodes), pause=0.25)
        finally:
            stopped.set()
        assert going.result() > 5
    assert refused == []
    published = {key["kid"] for key in request(there, "GET", "/.well-known/jwks.json").json()["keys"]}
    assert {fresh, old} <= published


def test_four_schedulers_rotate_once(nodes):
    """Each process looks every two seconds whether a key is too old."""
    manifest = Path(nodes[0].environment["TOKENSERVER_KEYS_DIR"], "ring.json")

    def entries(*states):
        ring = json.loads(manifest.read_text())["entries"]
        return sorted(e["kid"] for e in ring if e["alg"] == "EdDSA" and e["state"] in states)

    before = {state: entries(state) for state in ("next", "active", "retired")}
    age_keys(nodes[0], "next", "active", days=400)
    wait_until(lambda: entries("active") != before["active"])
    assert entries("active") == before["next"]

    def published(node):
        found = (request(node, "GET", "/.well-known/jwks.json").json()["keys"] for _ in range(EVERY_WORKER))
        return {tuple(sorted(key["kid"] for key in keys if key["alg"] == "EdDSA")) for keys in found}

    # By now each of them has looked since.
    everything = tuple(entries("active", "next", "retired"))
    wait_until(lambda: all(published(node) == {everything} for node in nodes), pause=0.25)
    assert entries("active") == before["next"]
    assert entries("retired") == sorted(before["retired"] + before["active"])
    assert len(entries("next")) == 1


# Who drains


def generation_of(token):
    raw = urlsafe_b64decode(token.removeprefix("rt_") + "==")
    return raw[:16].hex(), int.from_bytes(raw[16:20])


def test_who_drains_dies_and_another_goes_on(nodes, admin, sql):
    """kill -9 of both processes of one node, then of the other: the one that drained was among them. Every rotation
    reaches SQL, and every answered decision is in the log and in the counts, once."""
    user = nodes[0].signed_in("olga")
    reader = {"name": "statist", "permissions": ["stats:read"]}
    assert request(nodes[0], "POST", "/roles", json=reader, headers=admin).status_code == 201
    before = _decisions(nodes[0], admin)
    answered, stopped = Counter(), Event()
    with Balancer(nodes) as balancer, ThreadPoolExecutor(2) as pool:
        client = HonestClient(balancer, user["refresh_token"], pause=lambda: time.sleep(PAUSE))
        client.start()

        def ask(token):
            lost = 0
            while not stopped.is_set():
                try:
                    answered[balancer.send("GET", "/admin/stats", token=token).status] += 1
                except Exception:  # noqa: BLE001 - perhaps counted, perhaps not
                    lost += 1
                stopped.wait(PAUSE)
            return lost

        asking = [pool.submit(ask, token) for token in (admin["Authorization"].split()[1], user["access_token"])]
        for node in nodes:
            done = len(client.successors)
            wait_until(lambda done=done: len(client.successors) >= done + 5 or client.refused)
            victims = node.workers()
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda node=node, victims=victims: len(node.workers() - victims) == 2)
            wait_until(lambda node=node: readiness(node)[0] == 200)
            done = len(client.successors)
            wait_until(lambda done=done: len(client.successors) >= done + 5 or client.refused)
        stopped.set()
        client.stopped.set()
        client.join(60)
        unknown = [each.result() for each in asking]
    assert client.refused == []
    family, generation = generation_of(client.token)
    query = "SELECT generation FROM refresh_families WHERE id = CAST(:family AS uuid)"
    wait_until(lambda: sql(query, family=family) == [(generation,)])
    assert set(answered) <= {200, 403, 503}
    after = _decisions(nodes[1], admin)
    for kind, status, lost in (("allowed", 200, unknown[0]), ("denied", 403, unknown[1])):
        counted = after[kind] - before[kind]
        # Reading the counts is a decision of this kind, too.
        own = 1 if kind == "allowed" else 0
        assert answered[status] <= counted - own <= answered[status] + lost + answered[503], kind


def _decisions(node, admin):
    """So far, about reading the statistics."""
    found = request(node, "GET", "/admin/stats?window=1h", headers=admin).json()["permissions"]
    counts = next(each for each in found if each["permission"] == "stats:read")
    return {"allowed": counts["allowed"], "denied": counts["denied"]}
