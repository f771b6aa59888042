"""Clients that do what honest clients do, and write down what they saw."""

import contextlib
import http.client
import json
import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.faults.deployment import claims_of, family_of
from tests.faults.history import History, Kind, Op, Outcome
from tests.live_server import PASSWORD

ANSWER_SECONDS: Final = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0


class Lost(Exception):
    """No answer came: it is unknown what became of the request."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            found = json.loads(self.body)
            if isinstance(found, dict):
                return found
        return {}

    @property
    def retry_after(self) -> str:
        return self.headers.get("retry-after", "")


class Http:
    """One kept connection to each node; for one thread."""

    def __init__(self, urls: Sequence[str], timeout: float = ANSWER_SECONDS) -> None:
        self.urls = list(urls)
        self.timeout = timeout
        self._kept: dict[str, http.client.HTTPConnection] = {}

    def ask(
        self,
        node: int,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        url = self.urls[node % len(self.urls)]
        sent = dict(headers or {})
        payload = None
        if form is not None:
            payload, sent["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
        elif body is not None:
            payload, sent["Content-Type"] = json.dumps(body), "application/json"
        connection = self._kept.pop(url, None)
        if connection is None:
            host = urlsplit(url)
            connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=self.timeout)
        try:
            connection.request(method or ("POST" if payload is not None else "GET"), path, payload, sent)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Lost(type(error).__name__) from error
        if response.will_close:
            connection.close()
        else:
            self._kept[url] = connection
        headers = {name.lower(): ", ".join(response.headers.get_all(name, [])) for name in response.headers}
        return Answer(response.status, headers, content)

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()


@dataclass
class Holder:
    """One sign-in: who, and the newest tokens that they were given. `expected`: what answers to them must say."""

    name: str
    user: str
    session: str
    chain: str
    refresh_token: str
    access_token: str
    spent: list[tuple[str, float]] = field(default_factory=list)  # and when the successor was there

    @property
    def expected(self) -> str:
        return f"{self.user}/{self.session}"


class Clients:
    """Asks on behalf of holders, on any node, and keeps the history. `secret`: of the client that introspects.
    `prefix`: of the names of its people. `http`: makes what a thread asks by."""

    def __init__(
        self,
        urls: Sequence[str],
        secret: str,
        history: History,
        chance: random.Random,
        *,
        prefix: str = "",
        http: Callable[[Sequence[str]], Http] = Http,
    ) -> None:
        self.urls = list(urls)
        self.prefix = prefix
        self.history = history
        self._make_http = http
        self.chance = chance
        self._local = threading.local()
        self._basic = "Basic " + b64encode(f"backend:{secret}".encode()).decode()
        self._users = 0
        self._families = 0
        self._lock = threading.Lock()

    @property
    def http(self) -> Http:
        if not hasattr(self._local, "http"):
            self._local.http = self._make_http(self.urls)
        return self._local.http

    def node(self) -> int:
        return self.chance.randrange(len(self.urls))

    # People

    def register(self, name: str) -> None:
        body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
        answer = self.insist(lambda: self.http.ask(self.node(), "/auth/register", body=body))
        assert answer.status in {201, 409}, answer

    def insist(self, ask: Callable[[], Answer], patience: float = 60) -> Answer:
        """Again after 503 and after a lost answer, as honest clients do."""
        deadline = time.monotonic() + patience
        pause = FIRST_PAUSE
        while True:
            with contextlib.suppress(Lost):
                started = time.monotonic()
                answer = ask()
                if answer.status < 500:
                    return answer
                op = Op(
                    Kind.ISSUE,
                    "",
                    Outcome.UNKNOWN,
                    started,
                    time.monotonic(),
                    status=answer.status,
                    retry_after=answer.retry_after,
                )
                self.history.add(op)
            assert time.monotonic() < deadline, "no answer"
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def people(self, count: int) -> list[str]:
        with self._lock:
            first, self._users = self._users, self._users + count
        names = [f"{self.prefix}user{number}" for number in range(first, first + count)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.register, names))
        return names

    def sign_in(self, name: str, password: str = PASSWORD) -> Holder:
        """Until it works; each sign-in is a family."""
        started = time.monotonic()
        body = {"login": name, "password": password}
        answer = self.insist(lambda: self.http.ask(self.node(), "/auth/login", body=body))
        assert answer.status == 200, answer.body
        return self.holder(name, answer, started)

    def holder(self, name: str, answer: Answer, started: float) -> Holder:
        tokens = answer.json
        claims = claims_of(tokens["access_token"])
        with self._lock:
            self._families += 1
            family = f"{name}#{self._families}"
        refresh_token = tokens["refresh_token"]
        made = Holder(
            family, claims["sub"], claims["sid"], family_of(refresh_token), refresh_token, tokens["access_token"]
        )
        op = Op(Kind.ISSUE, family, Outcome.OK, started, time.monotonic(), successor=refresh_token, status=200)
        self.history.add(op)
        return made

    def holders(self, count: int, people: int = 8) -> list[Holder]:
        names = self.people(min(people, count))
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.sign_in, [names[number % len(names)] for number in range(count)]))

    # What is asked, and written down

    def _note(
        self,
        kind: Kind,
        holder: Holder,
        ask: Callable[[], Answer],
        read: Callable[[Answer], tuple[Outcome, str, str]],
        **fields: Any,
    ) -> Op:
        started = time.monotonic()
        try:
            answer = ask()
        except Lost:
            return self.history.add(Op(kind, holder.name, Outcome.UNKNOWN, started, time.monotonic(), **fields))
        ended = time.monotonic()
        outcome, subject, successor = Outcome.UNKNOWN, "", ""
        if answer.status < 500:
            outcome, subject, successor = read(answer)
        return self.history.add(
            Op(
                kind,
                holder.name,
                outcome,
                started,
                ended,
                status=answer.status,
                retry_after=answer.retry_after,
                subject=subject,
                successor=successor,
                **fields,
            )
        )

    def refresh(
        self,
        holder: Holder,
        token: str = "",
        *,
        honest: bool = True,
        probe: bool = False,
        node: int | None = None,
        http: Http | None = None,
    ) -> Op:
        presented = token or holder.refresh_token
        form = {"grant_type": "refresh_token", "client_id": "first-party", "refresh_token": presented}
        got: dict[str, Any] = {}

        def read(answer: Answer) -> tuple[Outcome, str, str]:
            if answer.status != 200:
                return Outcome.FAIL, "", ""
            got.update(answer.json)
            claims = claims_of(got["access_token"])
            subject = f"{claims['sub']}/{claims['sid']}/{family_of(got['refresh_token'])}"
            return Outcome.OK, subject, got["refresh_token"]

        at = self.node() if node is None else node
        op = self._note(
            Kind.REFRESH,
            holder,
            lambda: (http or self.http).ask(at, "/oauth/token", form=form),
            read,
            token=presented,
            expected=f"{holder.expected}/{holder.chain}",
            honest=honest,
            probe=probe,
        )
        if op.outcome is Outcome.OK and honest:
            if presented == holder.refresh_token:
                holder.spent.append((presented, op.ended))
            holder.refresh_token, holder.access_token = op.successor, got["access_token"]
        return op

    def access(self, holder: Holder, token: str = "", *, probe: bool = False) -> Op:
        """By a protected route, or by introspection."""
        bearer = {"Authorization": f"Bearer {token or holder.access_token}"}
        if self.chance.random() < 0.5:
            return self.introspect(holder, token, probe=probe)

        def read(answer: Answer) -> tuple[Outcome, str, str]:
            if answer.status != 200:
                return Outcome.FAIL, "", ""
            return Outcome.OK, f"{answer.json['id']}/{holder.session}", ""

        at = self.node()
        ask = lambda: self.http.ask(at, "/users/me", headers=bearer)  # noqa: E731
        return self._note(Kind.ACCESS, holder, ask, read, expected=holder.expected, probe=probe)

    def introspect(self, holder: Holder, token: str = "", *, probe: bool = False, node: int | None = None) -> Op:
        form = {"token": token or holder.access_token}

        def read(answer: Answer) -> tuple[Outcome, str, str]:
            if not answer.json.get("active"):
                return Outcome.FAIL, "", ""
            return Outcome.OK, f"{answer.json['sub']}/{answer.json['sid']}", ""

        at = self.node() if node is None else node
        headers = {"Authorization": self._basic}
        ask = lambda: self.http.ask(at, "/oauth/introspect", form=form, headers=headers)  # noqa: E731
        return self._note(Kind.ACCESS, holder, ask, read, expected=holder.expected, probe=probe)

    def revoke(self, holder: Holder, *, node: int | None = None) -> Op:
        form = {"token": holder.refresh_token, "client_id": "first-party"}

        def read(answer: Answer) -> tuple[Outcome, str, str]:
            return (Outcome.OK if answer.status == 200 else Outcome.FAIL), "", ""

        at = self.node() if node is None else node
        return self._note(Kind.REVOKE, holder, lambda: self.http.ask(at, "/oauth/revoke", form=form), read)

    def end(self, holder: Holder) -> Op:
        """Revoked until that is acknowledged."""
        while (op := self.revoke(holder)).outcome is Outcome.UNKNOWN:
            time.sleep(FIRST_PAUSE)
        return op

    # At the end

    def settle(self, holders: Sequence[Holder], *, replays: bool = True) -> None:
        """When all is healed: every leaf is spent, then old tokens are presented, and what they leave behind.

        A replay ends the family, so what was its leaf is refused afterwards.
        """
        leaves = self.history.leaves()

        def probe(holder: Holder) -> None:
            for leaf in leaves.get(holder.name, []):
                self.until_known(lambda leaf=leaf: self.refresh(holder, leaf, probe=True))
            if replays and len(holder.spent) > 2:
                old, _ = holder.spent[self.chance.randrange(len(holder.spent) - 2)]
                self.until_known(lambda: self.refresh(holder, old, honest=False))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(probe, holders))

    def settle_ended(self, holders: Sequence[Holder]) -> None:
        """What was ended is presented once more, on each node."""
        for holder in holders:
            for node in range(len(self.urls)):
                self.until_known(lambda holder=holder, node=node: self.introspect(holder, node=node, probe=True))
                self.until_known(lambda holder=holder, node=node: self.refresh(holder, honest=False, node=node))

    def until_known(self, ask: Callable[[], Op]) -> Op:
        deadline = time.monotonic() + 60
        while (op := ask()).outcome is Outcome.UNKNOWN:
            assert time.monotonic() < deadline, f"no answer to a probe: {op.status}"
            time.sleep(FIRST_PAUSE)
        return op


class Load:
    """Honest clients, one thread each, who refresh about every `period` s and use what they get; and people who
    were signed out, whose tokens somebody still has and tries.

    `churn` in s: how often somebody signs in. Every other one is revoked again; the others are `newcomers`.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        holders: int = 20,
        people: int = 8,
        ended: int = 6,
        period: float = 0.25,
        churn: float = 0.5,
        verify: float = 0.25,
    ) -> None:
        self.clients = clients
        self.period = period
        self.churn = churn
        self.verify = verify
        self.holders = clients.holders(holders, people=people)
        self.ended = clients.holders(ended, people=2)
        for holder in self.ended:
            clients.end(holder)
        self.newcomers: list[Holder] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.faults: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        jobs: list[Callable[[random.Random], None]] = [
            lambda chance, holder=holder: self._refresh(holder, chance) for holder in self.holders
        ]
        jobs += [self._try_ended]
        if self.churn:
            jobs += [self._churn]
        for job in jobs:
            chance = random.Random(self.clients.chance.random())
            thread = threading.Thread(target=self._run, args=(job, chance), daemon=True)
            thread.start()
            self._threads.append(thread)

    def settle(self) -> None:
        """Ends the load, and presents everything that was given, and everything that ended."""
        self.stop()
        self.clients.settle(self.holders + self.newcomers)
        self.clients.settle_ended(self.ended[-30:])

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self.faults:
            raise self.faults[0]

    def _run(self, job: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            job(chance)
        except BaseException as error:  # noqa: BLE001 - raised again by who stops the load
            self.faults.append(error)

    def _refresh(self, holder: Holder, chance: random.Random) -> None:
        clients = self.clients
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            op = clients.refresh(holder)
            if op.outcome is Outcome.FAIL:
                return  # signed out; the checker says whether that was right
            if op.outcome is Outcome.UNKNOWN:
                self._stop.wait(pause * chance.uniform(0.75, 1))
                pause = min(1.5 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            if chance.random() < self.verify:
                clients.access(holder)
            self._stop.wait(self.period * chance.uniform(0.5, 1.5))

    def _try_ended(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            holder = chance.choice(self.ended)
            if chance.random() < 0.7:
                self.clients.access(holder)
            else:
                self.clients.refresh(holder, honest=False)
            self._stop.wait(0.05)

    def _churn(self, chance: random.Random) -> None:
        name = self.clients.people(1)[0]
        while not self._stop.is_set():
            body = {"login": name, "password": PASSWORD}
            started = time.monotonic()
            with contextlib.suppress(Lost):
                answer = self.clients.http.ask(self.clients.node(), "/auth/login", body=body)
                if answer.status == 200:
                    holder = self.clients.holder(name, answer, started)
                    if chance.random() < 0.5:
                        self.newcomers.append(holder)
                    elif self.clients.revoke(holder).outcome is Outcome.OK:
                        self.ended.append(holder)
                elif answer.status >= 500:
                    op = Op(
                        Kind.ISSUE,
                        name,
                        Outcome.UNKNOWN,
                        started,
                        time.monotonic(),
                        status=answer.status,
                        retry_after=answer.retry_after,
                    )
                    self.clients.history.add(op)
            self._stop.wait(self.churn * chance.uniform(0.5, 1.5))
