"""E30-E33, E35 and E36: storms of sign-ins, guesses, people who are to be locked out, forged addresses, mass
registration, codes of devices.

Where a case needs many networks, the experiment stands for the one proxy that the nodes trust.
"""

import contextlib
import itertools
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.cookies import SimpleCookie
from multiprocessing import get_context

from tests.faults.deployment import Deployment
from tests.faults.history import Kind
from tests.faults.load import Answer, Http, Lost
from tests.faults.plan import Finding, Run, experiment, now, percentiles
from tests.faults.stores import wait_until
from tests.live_server import PASSWORD

# As the server has them when nothing else is said: docs/configuration.md.
FROM_ONE_NETWORK = 20
FROM_ALL_NETWORKS = 40
REGISTRATIONS, REGISTRATIONS_WINDOW = 100, 200
USER_CODES = 10
STORMS, STORM_SECONDS = 6, 5
BEHIND_A_PROXY = {"rate_limits": "on", "trusted_proxies": "1"}


def network(number: int) -> str:
    """One address each of many networks."""
    return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"


class Attacker:
    """Asks from any network, with a connection for each thread."""

    def __init__(self, made: Deployment) -> None:
        self.made = made
        self._local = threading.local()

    @property
    def http(self) -> Http:
        if not hasattr(self._local, "http"):
            self._local.http = Http(self.made.urls)
        return self._local.http

    def ask(self, path: str, number: int = 0, *, come_from: str = "", **sent: object) -> Answer:
        """Again when the queue is full or the connection is lost, as who wants an answer does."""
        headers = {"X-Forwarded-For": come_from} if come_from else {}
        headers |= dict(sent.pop("headers", {}))  # type: ignore[call-overload]
        for _ in range(400):
            with contextlib.suppress(Lost):
                answer = self.http.ask(number, path, headers=headers, **sent)  # type: ignore[arg-type]
                if answer.status != 503:
                    return answer
            time.sleep(0.1)
        raise TimeoutError(f"{path} isn't answered")

    def login(self, name: str, password: str, number: int = 0, come_from: str = "") -> Answer:
        return self.ask("/auth/login", number, come_from=come_from, body={"login": name, "password": password})

    def page(self, name: str, password: str, cookies: dict[str, str], come_from: str) -> int:
        """The form of the sign-in page in a browser that keeps its cookies, but for that of its session."""
        cookies.pop("tokenserver_session", None)

        def with_cookies() -> dict[str, str]:
            return {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}

        page = self.ask("/login", come_from=come_from, headers=with_cookies())
        _keep(cookies, page)
        found = re.search(r'name="csrf" value="([^"]+)"', page.body.decode())
        assert found, page.status
        form = {"csrf": found[1], "username": name, "password": password}
        headers = with_cookies() | {"Origin": self.made.first.url}
        answer = self.ask("/login", come_from=come_from, form=form, headers=headers)
        _keep(cookies, answer)
        return answer.status


def _keep(cookies: dict[str, str], answer: Answer) -> None:
    # One header by name is kept of several; cookies have no comma in what this server sets but the date.
    for line in re.split(r", (?=tokenserver_)", answer.headers.get("set-cookie", "")):
        for name, morsel in SimpleCookie(line).items():
            cookies[name] = morsel.value


def at_once(threads: int, ask: Callable[[int], Answer], numbers: Iterable[int]) -> Counter[int]:
    with ThreadPoolExecutor(threads) as pool:
        return Counter(answer.status for answer in pool.map(ask, numbers))


def told(counts: Counter[int]) -> str:
    return ", ".join(f"{status} × {count}" for status, count in sorted(counts.items()))


@experiment(
    "E30",
    "100 sign-ins/s with wrong passwords from 4,000 networks beside refreshes, 6 times 5 s without and 5 s with: "
    "whatever else the machine does is in both; one node, 2 workers",
    "the work of hashes is bounded, the rest is 503 or 429; refresh p99 < 2 × that of a quiet time",
)
def login_storm(run: Run) -> Finding:
    found = Finding()
    with run.deployed(nodes=1, **BEHIND_A_PROXY) as made, run.loaded(made, holders=16, churn=0) as load:
        run.clients(made).people(1)
        # The storm comes from elsewhere: in this process it would keep the honest clients from their own answers.
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=os.nice, initargs=(10,)) as elsewhere:
            elsewhere.submit(int).result()
            answers: Counter[int] = Counter()
            waits: list[float] = []
            without_retry = 0
            quiet_spans, storm_spans = [], []
            for turn in range(STORMS):
                time.sleep(2)
                began = now()
                time.sleep(STORM_SECONDS)
                quiet_spans.append((began, now()))
                more, waited, lacking = elsewhere.submit(_storm, made.urls, turn).result()
                storm_spans.append((quiet_spans[-1][1], now()))
                answers += more
                waits += waited
                without_retry += lacking
        time.sleep(2)
        load.settle()
    run.verdict(found)
    quiet, storm = (percentiles(_took(run, spans)) for spans in (quiet_spans, storm_spans))
    seconds = sum(until - since for since, until in storm_spans)
    found.tell(
        asked_per_s=f"{sum(answers.values()) / seconds:.0f}",
        hashes_per_s=f"{answers[401] / seconds:.0f}",
        answers=told(answers),
        sign_in_p99_ms=f"{percentiles(waits)[1]:.0f}",
        refresh_p50_p99_quiet_ms=f"{quiet[0]:.0f}, {quiet[1]:.0f}",
        refresh_p50_p99_storm_ms=f"{storm[0]:.0f}, {storm[1]:.0f}",
        ratio_of_p99=storm[1] / max(quiet[1], 0.001),
    )
    found.require(answers.keys() <= {401, 429, 503}, f"other answers: {told(answers)}")
    found.require(not without_retry, f"{without_retry} refusals without Retry-After")
    found.require(storm[1] < 2 * quiet[1], "the p99 of refreshes doubled")
    return found


def _took(run: Run, spans: Sequence[tuple[float, float]]) -> list[float]:
    """Of each refresh that began in them, in s."""
    asked = (op for since, until in spans for op in run.asked(since, until) if op.kind is Kind.REFRESH)
    return [op.ended - op.started for op in asked]


def _storm(urls: list[str], turn: int) -> tuple[Counter[int], list[float], int]:
    """100 sign-ins a second. Their answers by status, how long each took, and how many lacked Retry-After."""
    answers: Counter[int] = Counter()
    waits: list[float] = []
    without_retry: list[int] = []
    local = threading.local()
    started = now()

    def guess(number: int) -> None:
        if not hasattr(local, "http"):
            local.http = Http(urls)
        headers = {"X-Forwarded-For": network(number % 4000)}
        body = {"login": f"user{number % 500}", "password": "a wrong guess"}
        asked = now()
        with contextlib.suppress(Lost):
            answer = local.http.ask(number, "/auth/login", body=body, headers=headers)
            answers[answer.status] += 1
            waits.append(now() - asked)
            if answer.status in {429, 503} and not answer.retry_after:
                without_retry.append(number)

    with ThreadPoolExecutor(64) as pool:
        for number in range(100 * STORM_SECONDS):
            pool.submit(guess, 100 * STORM_SECONDS * turn + number)
            time.sleep(max(0.0, started + number / 100 - now()))
    return answers, waits, len(without_retry)


@experiment(
    "E31",
    "1,000 guesses at once for one account: from one network, then from 1,000",
    "exactly the limit is tried, over all processes",
)
def parallel_guesses(run: Run) -> Finding:
    found = Finding()
    with run.deployed(**BEHIND_A_PROXY) as made:
        attacker, clients = Attacker(made), run.clients(made)
        one, other = clients.people(2)
        from_one = at_once(64, lambda n: attacker.login(one, f"wrong {n}", n, "198.51.100.7"), range(1000))
        from_many = at_once(64, lambda n: attacker.login(other, f"wrong {n}", n, network(n)), range(1000))
        right = [attacker.login(other, PASSWORD, n, network(5000 + n)).status for n in range(2)]
    found.tell(
        tried_from_one_network=f"{from_one[401]} of 1000 ({told(from_one)})",
        tried_from_1000_networks=f"{from_many[401]} of 1000 ({told(from_many)})",
        tries_past_the_limit=from_one[401] + from_many[401] - FROM_ONE_NETWORK - FROM_ALL_NETWORKS,
    )
    found.require(from_one == {401: FROM_ONE_NETWORK, 429: 1000 - FROM_ONE_NETWORK}, "one network")
    found.require(from_many == {401: FROM_ALL_NETWORKS, 429: 1000 - FROM_ALL_NETWORKS}, "many networks")
    found.require(right == [429, 429], f"the right password was tried past the limit: {right}")
    return found


VICTIMS = 120
# s, in which one try comes back
ENDS_AFTER = 120


@experiment(
    "E32",
    "an attacker with a network for each guess fills the count of 120 accounts (plan: 1,000): a third known by a "
    "network, a third by a device, a third by nothing",
    "who is known enters meanwhile; the others when it has ended by itself",
)
def lock_out(run: Run) -> Finding:
    found = Finding()
    settings = BEHIND_A_PROXY | {"limit_login_account": f"3/{3 * ENDS_AFTER}s"}
    with run.deployed(**settings) as made:
        attacker = Attacker(made)
        names = [f"victim{number}" for number in range(VICTIMS)]
        homes = [f"203.0.113.{number % 250 + 1}" for number in range(VICTIMS)]
        browsers: list[dict[str, str]] = [{} for _ in names]

        def prepare(number: int) -> Answer:
            name = names[number]
            body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
            answer = attacker.ask("/auth/register", number, come_from=network(90_000 + number), body=body)
            if number % 3 == 0:
                assert attacker.login(name, PASSWORD, number, homes[number]).status == 200
            elif number % 3 == 1:
                assert attacker.page(name, PASSWORD, browsers[number], homes[number]) == 303
            return answer

        registered = at_once(12, prepare, range(VICTIMS))
        assert registered == {201: VICTIMS}, registered
        stop = threading.Event()
        guesses: Counter[int] = Counter()

        def attack(first: int) -> None:
            number = first
            while not stop.is_set():
                guesses[attacker.login(names[number % VICTIMS], "wrong", number, network(number)).status] += 1
                number += 8

        strangers = itertools.count(70_000)

        def enter(number: int) -> int:
            if number % 3 == 1:  # with the browser, from elsewhere
                return attacker.page(names[number], PASSWORD, browsers[number], network(80_000 + number))
            home = homes[number] if number % 3 == 0 else network(next(strangers))
            return attacker.login(names[number], PASSWORD, number, home).status

        with ThreadPoolExecutor(8) as pool:
            for number in range(8):
                pool.submit(attack, number)
            wait_until(lambda: guesses[429] >= VICTIMS, "every account is under attack", patience=300)
            with ThreadPoolExecutor(6) as victims:
                entered = list(victims.map(enter, range(VICTIMS)))
            stop.set()
        ended = now()
        shut_out = [number for number, status in enumerate(entered) if status not in {200, 303}]
        for number in shut_out:
            wait_until(
                lambda number=number: enter(number) in {200, 303}, "the victim enters", patience=2 * ENDS_AFTER
            )
        by_kind = Counter(number % 3 for number in shut_out)
    found.tell(
        guesses=told(guesses),
        shut_out_meanwhile=f"known network {by_kind[0]}, known device {by_kind[1]}, unknown {by_kind[2]} of "
        f"{VICTIMS // 3} each",
        all_entered_after_s=now() - ended,
    )
    found.require(not by_kind[0] and not by_kind[1], "somebody known was shut out")
    return found


SPELLINGS = ("ann", "ANN", "Ann", " ann ", "ａｎｎ", "ᴬnn"[:1].lower() + "nn", "aNN\u200a", "ａｎＮ")


@experiment(
    "E33",
    "100 guesses each with 0, 1 and 2 trusted proxies: addresses forged in X-Forwarded-For, an IPv6 /64 swept, the "
    "name spelled in variants",
    "one bucket: exactly the limit is tried",
)
def forged_sources(run: Run) -> Finding:
    found = Finding()
    bypasses = 0
    for hops, appended in ((0, ""), (1, "2001:db8:5:6:{:x}::1"), (2, "2001:db8:5:6:{:x}::1, 10.0.0.9")):
        options = {"rate_limits": "on", "trusted_proxies": str(hops)}
        with run.deployed(nodes=1, **options) as made:
            attacker = Attacker(made)
            body = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
            assert attacker.ask("/auth/register", body=body).status == 201

            def guess(number: int, appended: str = appended, attacker: Attacker = attacker) -> Answer:
                forged = ", ".join(filter(None, (f"198.51.100.{number}", appended.format(number))))
                return attacker.login(SPELLINGS[number % len(SPELLINGS)], "wrong", number, forged)

            answers = at_once(8, guess, range(100))
        found.figures[f"{hops} proxies"] = told(answers)
        bypasses += abs(answers[401] - FROM_ONE_NETWORK)
        found.require(answers.keys() <= {401, 429}, told(answers))
    found.tell(bypasses=bypasses)
    found.require(not bypasses, "more or less than the limit was tried")
    return found


@experiment(
    "E35",
    "50 registrations/s of users, then of clients, from one network for 15 s each",
    "429 past the limit, the tables are bounded by it; e-mail addresses can be probed no faster",
)
def mass_registration(run: Run) -> Finding:
    found = Finding()
    with run.deployed(nodes=1, rate_limits="on", client_registration="open") as made:
        attacker = Attacker(made)

        def user(number: int) -> Answer:
            body = {"username": f"mass{number}", "email": f"mass{number}@example.org", "password": PASSWORD}
            return attacker.ask("/auth/register", body=body)

        def probe(number: int) -> Answer:
            body = {"username": f"probe{number}", "email": f"mass{number}@example.org", "password": PASSWORD}
            return attacker.ask("/auth/register", body=body)

        def client(number: int) -> Answer:
            metadata = {"client_name": f"Mass {number}", "redirect_uris": ["https://app.example/cb"]}
            return attacker.ask("/oauth/register", body=metadata)

        for what, ask, table in (("users", user, "users"), ("clients", client, "clients")):
            before = _rows(made, table)
            started = now()
            answers = _at_a_rate(50, ask, 750)
            most = REGISTRATIONS + int((now() - started) * REGISTRATIONS / REGISTRATIONS_WINDOW) + 1
            grown = _rows(made, table) - before
            found.figures[what] = f"{told(answers)}; {grown} rows"
            found.require(answers.keys() <= {201, 429}, f"{what}: {told(answers)}")
            found.require(REGISTRATIONS <= grown <= most, f"{what}: {grown} rows, not {REGISTRATIONS} to {most}")
        probed = _at_a_rate(50, probe, 100)
        found.tell(addresses_probed_afterwards=told(probed))
        found.require(probed[409] + probed[201] <= 3 + 100, f"probes: {told(probed)}")
        found.require(probed[429] > 0, "probes are not limited")
    return found


def _rows(made: Deployment, table: str) -> int:
    return int(made.database.ask(f"SELECT count(*) FROM {table}")[0][0])


def _at_a_rate(per_second: int, ask: Callable[[int], Answer], count: int) -> Counter[int]:
    started = now()

    def timed(number: int) -> Answer:
        time.sleep(max(0.0, started + number / per_second - now()))
        return ask(number)

    return at_once(12, timed, range(count))


@experiment(
    "E36",
    "user codes guessed 100/s by one signed-in user from 1,000 networks, and by people in one network; a device "
    "polled 10/s for 15 s",
    "10 guesses, then 429; slow_down, then 429",
)
def device_codes(run: Run) -> Finding:
    found = Finding()
    with run.deployed(**BEHIND_A_PROXY) as made:
        attacker = Attacker(made)
        name, *others = run.clients(made).people(4)
        scopes = {"grant": "urn:ietf:params:oauth:grant-type:device_code"}
        made.first.run(
            *("client", "create", "--id", "tv", "--name", "TV", "--auth-method", "none"),
            *("--grant", scopes["grant"], "--scope", "openid"),
        )
        form = {"client_id": "tv"}
        codes = attacker.ask("/oauth/device_authorization", come_from=network(1), form=form).json
        by_one = _guess_codes(attacker, name, [network(number) for number in range(1000)])
        in_one = Counter[int]()
        for other in others:
            in_one += _guess_codes(attacker, other, ["198.51.100.9"] * 20)
        poll = {"grant_type": scopes["grant"], "client_id": "tv", "device_code": codes["device_code"]}
        words = Counter[str]()

        def ask(number: int) -> Answer:
            answer = attacker.ask("/oauth/token", number, come_from=network(1), form=poll)
            words[f"{answer.status} {answer.json['error']}"] += 1
            return answer

        _at_a_rate(10, ask, 150)
    found.tell(
        guesses_of_one_user=told(by_one),
        guesses_of_one_network=told(in_one),
        polls=", ".join(f"{word} × {count}" for word, count in sorted(words.items())),
    )
    found.require(by_one[400] == USER_CODES, f"one user made {by_one[400]} guesses")
    found.require(in_one[400] == USER_CODES, f"one network made {in_one[400]} guesses")
    found.require(words["400 authorization_pending"] <= 2, "polls that come too early are told to slow down")
    found.require(words["400 slow_down"] and words["429 slow_down"], "polls are slowed down, then refused")
    found.require(set(words) <= {"400 authorization_pending", "400 slow_down", "429 slow_down"}, str(words))
    return found


def _guess_codes(attacker: Attacker, name: str, networks: Sequence[str]) -> Counter[int]:
    """By a user who is signed in in a browser; 400: a wrong code, 429: not looked at."""
    cookies: dict[str, str] = {}
    assert attacker.page(name, PASSWORD, cookies, network(60_000)) == 303
    kept = {"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    page = attacker.ask("/device", come_from=networks[0], headers=kept)
    found = re.search(r'name="csrf" value="([^"]+)"', page.body.decode())
    assert found, page.status
    headers = kept | {"Origin": attacker.made.first.url}

    def guess(number: int) -> Answer:
        code = "".join("BCDFGHJKLMNPQRSTVWXZ"[(number * 7919 >> bit) % 20] for bit in range(8))
        form = {"csrf": found[1], "user_code": code}
        return attacker.ask("/device", number, come_from=networks[number], form=form, headers=headers)

    return _at_a_rate(100, guess, len(networks))
