"""The verifier alone, without a server: CPU µs for each token."""

import time
from itertools import cycle
from typing import Any, Final

import httpx

from benchmarks.measuring import send
from benchmarks.plans import Plans
from benchmarks.signature import raw_signature_ms
from tokenserver.verify import StaticKeys, Verifier

SECONDS: Final = 0.5


def figures(plans: Plans, url: str) -> list[dict[str, Any]]:
    """Of each algorithm. `cold_us`: a new verifier reads the keys and its first token; `warm_us`: each further one,
    all of them different."""
    port = httpx.URL(url).port or 80
    keys = httpx.get(f"{url}/.well-known/jwks.json", trust_env=False).json()
    found = []
    for alg in plans.kits:
        tokens = send(port, plans.plan("client_credentials", alg, 4) | {"most": 200}, 5)["collected"]
        r_us = raw_signature_ms() * 1000
        cold, warm = _cold(url, keys, tokens), _warm(url, keys, tokens)
        found.append({"alg": alg, "cold_us": cold, "warm_us": warm, "ratio": warm / r_us})
    return found


def _verifier(url: str, keys: dict[str, Any]) -> Verifier:
    return Verifier(issuer=url, audience=url, keys=StaticKeys(keys), leeway=60)


def _cold(url: str, keys: dict[str, Any], tokens: list[str]) -> float:
    started = time.process_time()
    for token in tokens:
        _verifier(url, keys).verify(token)
    return (time.process_time() - started) * 1e6 / len(tokens)


def _warm(url: str, keys: dict[str, Any], tokens: list[str]) -> float:
    verifier = _verifier(url, keys)
    verifier.verify(tokens[0])
    count, started = 0, time.process_time()
    for token in cycle(tokens):
        verifier.verify(token)
        count += 1
        if (spent := time.process_time() - started) > SECONDS:
            break
    return spent * 1e6 / count
