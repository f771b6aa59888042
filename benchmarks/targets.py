"""What has to hold, and whether it does: each target with what was measured."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple


class Target(NamedTuple):
    """`stretch`: what would be better still, or None."""

    name: str
    unit: str
    at_most: float
    stretch: float | None = None


class Verdict(NamedTuple):
    target: Target
    measured: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.target.at_most

    def __str__(self) -> str:
        name, unit, bound, _ = self.target
        return f"{name}: {self.measured:.2f} {unit}, target at most {bound:g} {unit}"


# CPU per request as a multiple of R: embedded stores, 32 connections, everything on.
RATIOS: Final = {
    ("RS256", "client_credentials"): (1.6, 1.35),
    ("RS256", "refresh"): (1.9, 1.55),
    ("RS256", "introspection"): (0.6, 0.45),
    ("RS256", "JWKS"): (0.12, 0.07),
    ("RS256", "discovery"): (0.12, 0.07),
    ("RS256", "/users/me"): (1.2, None),
    ("ES256", "client_credentials"): (0.5, 0.35),
}
P99_PATHS: Final = ("client_credentials", "refresh")


def of_paths(results: dict[str, Any]) -> list[Verdict]:
    """Those that can be judged by what was measured."""
    return [*_ratios(results["cells"]), *_whole(results)]


def _ratios(cells: Iterable[dict[str, Any]]) -> Iterable[Verdict]:
    for cell in cells:
        if cell["stores"] != "embedded" or cell["connections"] != 32:
            continue
        name = f"{cell['path']} with {cell['alg']}"
        if bounds := RATIOS.get((cell["alg"], cell["path"])):
            yield Verdict(Target(name, "R", *bounds), cell["ratio"])
        if cell["alg"] == "RS256" and cell["path"] in P99_PATHS:
            yield Verdict(Target(f"p99 of {name} at 32 connections", "ms", 20), cell["p99_ms"])


def _whole(results: dict[str, Any]) -> Iterable[Verdict]:
    for each in results["memory"]:
        if each["stores"] == "embedded":
            yield Verdict(Target("memory with embedded Redis", "MB PSS", 150), each["after_with_stores_mb"])
    for each in results["starts"]:
        if each["stores"] == "embedded":
            yield Verdict(Target("second start to the first 200", "s", 2), each["second_s"])
    if results["sign_ins"]:
        apart = results["sign_ins"]["apart_percent"]
        yield Verdict(Target("medians of refused sign-ins apart", "%", 10), apart)
