"""The verifier alone, without a server: CPU µs for each token."""

import time
from typing import Any, Final

import httpx

from benchmarks.measuring import send
from benchmarks.plans import Plans
from benchmarks.signature import raw_signature_ms
from tokenserver.verify import StaticKeys, Verifier

SECONDS: Final = 0.5


def figures(plans: Plans, url: str) -> list[dict[str, Any]]:
    """Of each algorithm. `cold_us`: a new verifier reads the keys and its first token; `warm_us`: each further one,
    all of them different; `again_us`: one that it verified before."""
    port = httpx.URL(url).port or 80
    keys = httpx.get(f"{url}/.well-known/jwks.json", trust_env=False).json()
    found = []
    for alg in plans.kits:
        tokens = send(port, plans.plan("client_credentials", alg, 4) | {"most": 200}, 5)["collected"]
        r_us = raw_signature_ms() * 1000
        cold, warm, again = (measure(url, keys, tokens) for measure in (_cold, _warm, _again))
        found.append({"alg": alg, "cold_us": cold, "warm_us": warm, "again_us": again, "ratio": warm / r_us})
    return found


def _verifier(url: str, keys: dict[str, Any]) -> Verifier:
    return Verifier(issuer=url, audience=url, keys=StaticKeys(keys), leeway=60)


def _cold(url: str, keys: dict[str, Any], tokens: list[str]) -> float:
    started = time.process_time()
    for token in tokens:
        _verifier(url, keys).verify(token)
    return (time.process_time() - started) * 1e6 / len(tokens)


def _warm(url: str, keys: dict[str, Any], tokens: list[str]) -> float:
    count, spent = 0, 0.0
    while spent < SECONDS:
        verifier = _verifier(url, keys)
        verifier.verify(tokens[0])
        started = time.process_time()
        for token in tokens[1:]:
            verifier.verify(token)
        spent += time.process_time() - started
        count += len(tokens) - 1
    return spent * 1e6 / count


def _again(url: str, keys: dict[str, Any], tokens: list[str]) -> float:
    verifier = _verifier(url, keys)
    for token in tokens:
        verifier.verify(token)
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < SECONDS:
        for token in tokens:
            verifier.verify(token)
        count += len(tokens)
    return spent * 1e6 / count
