"""E01-E08: what clients do to one family at once, out of order, too late, or after its end."""

import contextlib
import hashlib
import socket
import threading
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.faults.deployment import Deployment
from tests.faults.history import Kind, Op, Outcome
from tests.faults.load import Answer, Clients, Holder, Http
from tests.faults.plan import Finding, Run, experiment, now
from tests.faults.stores import wait_until
from tests.live_server import ADMIN_PASSWORD, PASSWORD
from tests.person import Person

AT_ONCE = 50
CALLBACK = "https://app.example/cb"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def at_once(count: int, ask: Callable[[int, Http], Any], urls: list[str]) -> list[Any]:
    """`ask` for each number, all released at the same moment, each on a connection of its own."""
    start = threading.Barrier(count)

    def one(number: int) -> Any:
        http = Http(urls)
        with contextlib.closing(http):
            start.wait()
            return ask(number, http)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@experiment(
    "E01",
    "one refresh token used 50 times at once on 2 nodes × 2 workers; 160 families with grace, 40 without",
    "one successor for each token; without the grace one success",
)
def one_token_at_once(run: Run) -> Finding:
    found = Finding()
    uses = Counter[str]()
    for grace, families in ((10, 160), (0, 40)):
        run.history.ops.clear()
        with run.deployed(**({} if grace else {"refresh_grace": "0"})) as made:
            clients = run.clients(made)
            for holder in clients.holders(families):
                token = holder.refresh_token
                ops: list[Op] = at_once(
                    AT_ONCE,
                    partial(_use, clients, holder, token),
                    made.urls,
                )
                good = [op for op in ops if op.outcome is Outcome.OK]
                uses[f"grace {grace}"] += len(good)
                if grace:
                    found.require(len(good) == AT_ONCE, f"{len(good)} of {AT_ONCE} uses within the grace worked")
                    clients.refresh(holder, probe=True)
                else:
                    found.require(len(good) == 1, f"{len(good)} uses worked without a grace")
        if grace:
            run.verdict(found, grace=grace)
    # Without a grace the 49 others are replays and end the family: nobody is "signed out" unjustly by that.
    spent = {op.token for op in run.history.ops if op.kind is Kind.REFRESH and op.outcome is Outcome.OK}
    double = len(spent) != uses["grace 0"]
    found.require(not double, "a token worked twice without a grace")
    statuses = {op.status for op in run.history.ops if op.status >= 500}
    found.require(not statuses, f"answers {statuses}")
    found.tell(successes_with_the_grace=f"{uses['grace 10']} of {40 * AT_ONCE}, one successor each")
    found.tell(successes_without=f"{uses['grace 0']} of {10 * AT_ONCE}")
    return found


def _use(clients: Clients, holder: Holder, token: str, number: int, http: Http) -> Op:
    return clients.refresh(holder, token, node=number, http=http)


@experiment(
    "E02", "one code redeemed 50 times at once; 10 codes", "one success, 49 invalid_grant; what was issued ends"
)
def one_code_at_once(run: Run) -> Finding:
    found = Finding()
    successes, statuses = [], Counter[int]()
    with run.deployed() as made:
        clients = run.clients(made)
        made.first.run(
            *(
                "client",
                "create",
                "--id",
                "app",
                "--name",
                "App",
                "--auth-method",
                "none",
                "--grant",
                "authorization_code",
            ),
            *("--grant", "refresh_token", "--scope", "openid offline_access", "--redirect-uri", CALLBACK),
        )
        (name,) = clients.people(1)
        ann = Person.at(made.first.url, name)
        for _ in range(10):
            code = _code(made, ann)
            form = {"grant_type": "authorization_code", "client_id": "app", "code": code}
            form |= {"redirect_uri": CALLBACK, "code_verifier": VERIFIER}
            answers: list[Answer] = at_once(
                AT_ONCE, lambda n, http, form=form: http.ask(n, "/oauth/token", form=form), made.urls
            )
            statuses.update(answer.status for answer in answers)
            good = [answer for answer in answers if answer.status == 200]
            successes.append(len(good))
            refused = [answer.json.get("error") for answer in answers if answer.status != 200]
            found.require(set(refused) == {"invalid_grant"}, f"losers were told {set(refused)}")
            if good:
                bearer = {"Authorization": f"Bearer {good[0].json['access_token']}"}
                for node in range(len(made.urls)):
                    status = clients.http.ask(node, "/oauth/userinfo", headers=bearer).status
                    found.require(
                        status == 401, f"the winner's access token is accepted after the replay: {status}"
                    )
    found.require(set(successes) == {1}, f"successes of each code: {successes}")
    found.tell(double_spends=sum(each - 1 for each in successes if each > 1))
    found.tell(
        successes=f"{sum(successes)} of {10 * AT_ONCE}", x5xx=sum(n for s, n in statuses.items() if s >= 500)
    )
    found.figures["5xx"] = found.figures.pop("x5xx")
    found.require(found.figures["5xx"] == "0", "there were 5xx")
    return found


def _code(made: Deployment, person: Person) -> str:
    query = {
        "client_id": "app",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid",
        "state": "s",
        "nonce": "n",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    landing = person.authorize(f"{made.first.url}/oauth/authorize?{urlencode(query)}", CALLBACK)
    return landing.parameters["code"]


@experiment(
    "E03",
    "the socket is closed as soon as the request is sent; the same token again within the grace (200 times) and "
    "after it (40 times, grace 2 s)",
    "within: the same successor, nobody is signed out; after: the family ends",
)
def lost_answers(run: Run) -> Finding:
    found = Finding()
    with run.deployed(nodes=2) as made:
        clients = run.clients(made)
        holders = clients.holders(20)
        signed_out = 0
        for number in range(200):
            holder = holders[number % len(holders)]
            _send_and_close(made.urls[number % 2], holder, run)
            time.sleep(run.chance.uniform(0, 0.02))
            op = clients.refresh(holder)
            signed_out += op.outcome is Outcome.FAIL
        clients.settle(holders)
    run.verdict(found)
    found.tell(lock_outs_per_1000_lost_answers=1000 * signed_out // 200)
    found.require(signed_out == 0, f"{signed_out} signed out within the grace")

    with run.deployed(refresh_grace="2") as made:
        clients = run.clients(made)
        holders = clients.holders(40)
        for number, holder in enumerate(holders):
            _send_and_close(made.urls[number % 2], holder, run)
        time.sleep(3.5)
        late = Counter(clients.refresh(holder, honest=False).outcome for holder in holders)
        for holder in holders:
            if clients.refresh(holder, honest=False).outcome is Outcome.OK:
                # Spent by its own second use, so the first one had not arrived.
                continue
            access = clients.introspect(holder)
            found.require(access.outcome is Outcome.FAIL, "an access token lives on in a family that ended")
    found.tell(after_the_grace=f"{late[Outcome.FAIL]} of 40 families ended")
    found.require(late[Outcome.FAIL] > 0, "no lost answer had spent its token")
    found.require(late[Outcome.UNKNOWN] == 0, "no answer")
    return found


def _send_and_close(url: str, holder: Holder, run: Run) -> None:
    """What became of it is unknown to who sent it."""
    form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": holder.refresh_token}
    body = urlencode(form)
    host = urlsplit(url)
    head = (
        f"POST /oauth/token HTTP/1.1\r\nHost: {host.netloc}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    )
    started = now()
    with socket.create_connection((str(host.hostname), int(host.port or 0)), timeout=5) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        time.sleep(run.chance.choice([0, 0.001, 0.003]))
    op = Op(Kind.REFRESH, holder.name, Outcome.UNKNOWN, started, now(), token=holder.refresh_token)
    run.history.add(op)


@experiment(
    "E04",
    "parent, grandparent and 10th ancestor of the live token presented after a grace of 1 s; 10 families each",
    "the family is dead on every node when the replay is answered, and the event is in the log",
)
def replayed_ancestors(run: Run) -> Finding:
    found = Finding()
    waits = []
    with run.deployed(refresh_grace="1") as made:
        clients = run.clients(made)
        holders = clients.holders(30)
        for holder in holders:
            for _ in range(11):
                clients.refresh(holder)
        time.sleep(2.2)
        for number, holder in enumerate(holders):
            back = (1, 2, 10)[number % 3]
            old, _ = holder.spent[-back]
            started = now()
            op = clients.refresh(holder, old, honest=False)
            found.require(op.outcome is Outcome.FAIL, f"ancestor {back} was answered {op.status}")
            for node in range(2):
                leaf = clients.refresh(holder, honest=False, node=node)
                access = clients.introspect(holder, node=node)
                found.require(leaf.outcome is Outcome.FAIL, "the leaf lives on")
                found.require(access.outcome is Outcome.FAIL, "an access token lives on")
            waits.append(now() - started)
        wait_until(lambda: _events(clients, "refresh_token:reused") >= len(holders), "the events are in the log")
        logged = _events(clients, "refresh_token:reused")
    found.require(logged == len(holders), f"{logged} of {len(holders)} replays are in the log")
    run.verdict(found, grace=1)
    found.tell(families_ended=f"{len(waits)} of 30", events=logged)
    found.tell(ms_until_refused_everywhere=f"{1000 * sorted(waits)[len(waits) // 2]:.0f} (p50, of 5 requests)")
    return found


def _events(clients: Clients, action: str) -> int:
    token = _admin(clients)
    answer = clients.http.ask(0, f"/admin/logs?{urlencode({'action': action, 'limit': 100})}", headers=token)
    assert answer.status == 200, answer.body
    return len(answer.json["items"])


def _admin(clients: Clients) -> dict[str, str]:
    body = {"login": "admin", "password": ADMIN_PASSWORD}
    answer = clients.insist(lambda: clients.http.ask(0, "/auth/login", body=body))
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


@experiment(
    "E05",
    "refresh and revocation of one family at once, on two nodes; 1,000 pairs",
    "nothing lives after both answered",
)
def refresh_and_revoke(run: Run) -> Finding:
    found = Finding()
    first = Counter[str]()
    with run.deployed() as made:
        clients = run.clients(made)
        holders = clients.holders(1000, people=4)

        def pair(holder: Holder) -> None:
            token = holder.refresh_token
            with ThreadPoolExecutor(2) as pool:
                asks = [
                    pool.submit(clients.refresh, holder, token, node=0),
                    pool.submit(clients.revoke, holder, node=1),
                ]
            refresh, revoke = (ask.result() for ask in asks)
            found.require(revoke.outcome is Outcome.OK, f"the revocation was answered {revoke.status}")
            first["the refresh" if refresh.outcome is Outcome.OK else "the revocation"] += 1
            for node in range(2):
                clients.introspect(holder, node=node)
                clients.refresh(holder, honest=False, node=node)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(pair, holders))
    run.verdict(found)
    found.tell(won=", ".join(f"{who} {count} times" for who, count in sorted(first.items())))
    return found


@experiment(
    "E06",
    "refresh at the same moment as a change of password, a disabled account, a role taken away; 20 each",
    "no token from before lives; what the role gave is refused from the next request on",
)
def refresh_and_change(run: Run) -> Finding:
    found = Finding()
    survivors = Counter[str]()
    with run.deployed() as made:
        clients = run.clients(made)
        admin = _admin(clients)
        for name in clients.people(20):
            one, other = clients.sign_in(name), clients.sign_in(name)
            body = {"password": "another horse 8 battery", "current_password": PASSWORD}
            bearer = {"Authorization": f"Bearer {one.access_token}"}
            survivors["password"] += _survives(
                run,
                clients,
                other,
                lambda body=body, bearer=bearer: clients.http.ask(
                    1, "/users/me", body=body, method="PUT", headers=bearer
                ),
                found,
            )
        for name in clients.people(20):
            holder = clients.sign_in(name)
            path = f"/users/{holder.user}/status"
            survivors["disabled"] += _survives(
                run,
                clients,
                holder,
                lambda path=path: clients.http.ask(
                    1, path, body={"status": "disabled"}, method="PUT", headers=admin
                ),
                found,
            )
        for name in clients.people(20):
            holder = clients.sign_in(name)
            path = f"/users/{holder.user}/roles"
            given = clients.http.ask(0, path, body={"roles": ["user", "moderator"]}, method="PUT", headers=admin)
            assert given.status == 200, given.body
            clients.refresh(holder)
            with ThreadPoolExecutor(2) as pool:
                refresh = pool.submit(clients.refresh, holder, node=0)
                taken = pool.submit(
                    lambda path=path: clients.http.ask(
                        1, path, body={"roles": ["user"]}, method="PUT", headers=admin
                    )
                )
                refresh.result()
                assert taken.result().status == 200
            bearer = {"Authorization": f"Bearer {holder.access_token}"}
            for node in range(2):
                status = clients.http.ask(node, f"/users/{holder.user}", headers=bearer).status
                survivors["role"] += status != 403
    run.verdict(found)
    found.tell(survivors=", ".join(f"{what} {survivors[what]}" for what in ("password", "disabled", "role")))
    found.require(not sum(survivors.values()), f"survivors: {dict(survivors)}")
    return found


def _survives(run: Run, clients: Clients, holder: Holder, change: Callable[[], Answer], found: Finding) -> int:
    """Whether anything of the holder's works after the change was answered, made amid a refresh."""
    old = holder.refresh_token
    with ThreadPoolExecutor(2) as pool:
        refresh = pool.submit(clients.refresh, holder, old, node=0)
        started = now()
        answer = change()
        run.history.add(Op(Kind.REVOKE, holder.name, Outcome.OK, started, now(), status=answer.status))
        refresh.result()
    found.require(answer.status == 200, f"the change was answered {answer.status}")
    ops = [
        clients.refresh(holder, token, honest=False, node=node)
        for token in {old, holder.refresh_token}
        for node in (0, 1)
    ]
    ops += [clients.introspect(holder, node=node) for node in (0, 1)]
    return sum(op.outcome is Outcome.OK for op in ops)


@experiment("E07", "a grandparent presented within the grace; 40 families", "refused, and the family ends")
def grandparents(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made:
        clients = run.clients(made)
        holders = clients.holders(40)
        for holder in holders:
            first = holder.refresh_token
            clients.refresh(holder)
            clients.refresh(holder)
            op = clients.refresh(holder, first, honest=False)
            found.require(op.outcome is Outcome.FAIL, f"the grandparent was answered {op.status}")
            ended = clients.refresh(holder, honest=False), clients.introspect(holder)
            found.require(all(each.outcome is Outcome.FAIL for each in ended), "the family lives on")
    run.verdict(found)
    found.tell(families_ended=f"{len(holders)} of 40")
    return found


@experiment("E08", "refresh, revoke, then the refresh again within the grace; 40 families", "refused")
def revoked_within_the_grace(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made:
        clients = run.clients(made)
        holders = clients.holders(40)
        for holder in holders:
            first = holder.refresh_token
            clients.refresh(holder)
            clients.end(holder)
            for token in (first, holder.refresh_token):
                for node in range(2):
                    op = clients.refresh(holder, token, honest=False, node=node)
                    found.require(op.outcome is Outcome.FAIL, f"answered {op.status} after the revocation")
    run.verdict(found)
    found.tell(refused=f"{4 * len(holders)} of {4 * len(holders)}" if not found.broken else "not all")
    return found
