"""E20-E22: signing keys that rotate, a JWKS that is away, tokens with keys that nobody knows."""

import base64
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.faults.clock_experiments import off_by
from tests.faults.deployment import Deployment, claims_of
from tests.faults.load import Clients
from tests.faults.plan import Finding, Run, experiment, now, percentiles
from tests.faults.proxy import FaultProxy
from tests.faults.stores import wait_until
from tokenserver.verify.access_token import Verifier
from tokenserver.verify.errors import KeysUnavailable, TokenError
from tokenserver.verify.jwks import JWKSKeys


def verifier(issuer: str, port: int, max_age: float = 300) -> Verifier:
    """As another service has it; it reads the keys through a proxy on this port."""
    keys = JWKSKeys(f"http://127.0.0.1:{port}/.well-known/jwks.json", max_age=max_age)
    return Verifier(issuer=issuer, audience=issuer, keys=keys)


def proxy_to(made: Deployment, seed: int) -> FaultProxy:
    return FaultProxy(("127.0.0.1", int(made.first.environment["TOKENSERVER_PORT"])), seed=seed)


@experiment(
    "E20",
    "the signing key rotated under load, and the old one pruned after its window (by a clock that is set on); a "
    "service verifies each token",
    "no valid token refused; the retired key is 401 after its window",
)
def rotation(run: Run) -> Finding:
    found = Finding()
    refused: list[str] = []
    verified = 0
    # The ring is made an hour ago, so that its next key is ready.
    with (
        run.deployed(first_start=off_by(-3600), jwks_max_age="10", access_token_ttl="30") as made,
        proxy_to(made, run.seed) as proxy,
        run.loaded(made, holders=12) as load,
    ):
        offline = verifier(made.first.environment["TOKENSERVER_ISSUER"], proxy.port)
        stop = threading.Event()

        def verify() -> None:
            nonlocal verified
            while not stop.is_set():
                for holder in load.holders:
                    token = holder.access_token
                    if claims_of(token)["exp"] < time.time() + 2:
                        continue
                    try:
                        offline.verify(token)
                        verified += 1
                    except TokenError as error:
                        refused.append(repr(error))
                stop.wait(0.02)

        watching = threading.Thread(target=verify)
        watching.start()
        time.sleep(3)
        old = _header(load.holders[0].access_token)["kid"]
        stolen = _private_key(Path(made.first.environment["TOKENSERVER_KEYS_DIR"]), old)
        rotated = now()
        made.first.run("keys", "rotate")
        wait_until(
            lambda: all(_header(holder.access_token)["kid"] != old for holder in load.holders),
            "every process signs with the new key",
            patience=60,
        )
        took = now() - rotated
        time.sleep(3)
        stop.set()
        watching.join()
        load.stop()
        load.clients.settle(load.holders)
        # What the old key signs is good until it is gone.
        forged = _sign(stolen, old, load.holders[0].access_token)
        environment = made.first.environment
        made.first.environment = environment | off_by(600)
        pruned = made.first.run("keys", "prune", status=None)
        made.first.environment = environment
        bearer = {"Authorization": f"Bearer {forged}"}
        wait_until(
            lambda: all(_status(load.clients, node, bearer) == 401 for node in range(2)),
            "the retired key is refused",
        )
    run.verdict(found)
    found.tell(failed_verifies=f"{len(refused)} of {verified}", new_key_everywhere_s_after_the_command_began=took)
    found.require(not refused, f"a valid token was refused: {refused[:1]}")
    found.require(verified > 100, "hardly anything was verified")
    found.require(old[:8] in pruned or "1" in pruned, "nothing was pruned")
    return found


def _header(token: str) -> dict[str, Any]:
    head = token.split(".", maxsplit=1)[0]
    return dict(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))))


def _private_key(folder: Path, kid: str) -> RSAKey:
    (file,) = (path for path in folder.rglob("*.pem") if kid in path.name)
    return RSAKey.import_key(file.read_text("ascii"))


def _sign(key: RSAKey, kid: str, like: str) -> str:
    claims = claims_of(like) | {"exp": int(time.time()) + 600}
    return jwt.encode({"typ": "at+jwt", "alg": "RS256", "kid": kid}, claims, key)


def _status(clients: Clients, node: int, headers: dict[str, str]) -> int:
    return clients.insist(lambda: clients.http.ask(node, "/users/me", headers=headers)).status


@experiment(
    "E21",
    "a service's verifier loses the JWKS, which may be kept for 10 s, for 20 s (plan: 10 min), then gets it back",
    "the keys at hand serve, without a wait",
)
def jwks_away(run: Run) -> Finding:
    found = Finding()
    failed = verified = 0
    with (
        run.deployed(nodes=1, access_token_ttl="300", jwks_max_age="10") as made,
        proxy_to(made, run.seed) as proxy,
    ):
        clients = run.clients(made)
        token = clients.holders(1)[0].access_token
        offline = verifier(made.first.environment["TOKENSERVER_ISSUER"], proxy.port)
        offline.verify(token)
        fresh = proxy.connections
        proxy.refusing = True
        proxy.cut()
        # The server's max-age is 10 s, so the keys at hand grow old meanwhile.
        ends = now() + 20
        waits = []
        while now() < ends:
            started = now()
            try:
                offline.verify(token)
                verified += 1
            except (TokenError, KeysUnavailable):
                failed += 1
            waits.append(now() - started)
            time.sleep(0.02)
        asked = proxy.connections - fresh
        proxy.refusing = False
        offline.verify(token)
    found.tell(failed_verifies=f"{failed} of {failed + verified}", reads_tried_while_away=asked)
    found.tell(longest_wait_ms=f"{1000 * max(waits):.0f}")
    found.require(not failed, "the keys at hand did not serve")
    found.require(asked > 0, "nobody tried to read the keys again")
    return found


@experiment(
    "E22",
    "10,000 tokens with random kids, at a service's verifier and at the server, beside valid ones",
    "at most 1 read of the JWKS in 30 s; the server reads its ring no more than before",
)
def unknown_kids(run: Run) -> Finding:
    found = Finding()
    with run.deployed() as made, proxy_to(made, run.seed) as proxy:
        clients = run.clients(made)
        holder = clients.holders(1)[0]
        offline = verifier(made.first.environment["TOKENSERVER_ISSUER"], proxy.port)
        offline.verify(holder.access_token)
        before, started = proxy.connections, now()
        head, body, signature = holder.access_token.split(".")
        header = _header(holder.access_token)
        accepted = 0
        good = []
        for number in range(10_000):
            kid = base64.urlsafe_b64encode(
                json.dumps(header | {"kid": uuid.UUID(int=run.chance.getrandbits(128)).hex}).encode()
            )
            forged = f"{kid.rstrip(b'=').decode()}.{body}.{signature}"
            try:
                offline.verify(forged)
                accepted += 1
            except TokenError:
                pass
            if number % 100 == 0:
                asked = now()
                offline.verify(holder.access_token)
                good.append(now() - asked)
            if number % 10 == 0:
                status = _status(clients, number // 10, {"Authorization": f"Bearer {forged}"})
                found.require(status == 401, f"the server answered {status}")
        fetches, seconds = proxy.connections - before, now() - started
    del head
    p50, p99 = percentiles(good)
    found.tell(
        fetches=f"{fetches} in {seconds:.0f} s", accepted=accepted, others_p50_p99_ms=f"{p50:.2f}, {p99:.2f}"
    )
    found.require(accepted == 0, "a forged token was accepted")
    found.require(fetches <= 1 + seconds // 30, f"{fetches} reads in {seconds:.0f} s")
    return found
