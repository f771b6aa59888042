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
        if cell["alg"] == "RS256" and cell["path"] in P99_PATHS and cell["p99_ms"] is not None:
            yield Verdict(Target(f"p99 of {name} at 32 connections", "ms", 20), cell["p99_ms"])


def _whole(results: dict[str, Any]) -> Iterable[Verdict]:
    for each in results["memory"]:
        if each["stores"] == "embedded":
            yield Verdict(Target("memory with embedded Redis", "MB PSS", 150), each["after_with_stores_mb"])
    for each in results["starts"]:
        if each["stores"] == "embedded" and each["second_s"] is not None:
            yield Verdict(Target("second start to the first 200", "s", 2), each["second_s"])
    if results["sign_ins"]:
        apart = results["sign_ins"]["apart_percent"]
        yield Verdict(Target("medians of refused sign-ins apart", "%", 10), apart)


# So much may two samples of the same differ on a machine that does other things too.
SAME: Final = 1.1
NODE: Final = "node-oidc-provider"
FLOOR: Final = "no server: a question, a signature"
# Of Glewlwyd 2.7 as a multiple of R: figures of another run on such a machine, since it isn't started here.
GLEWLWYD: Final = {"client_credentials": 7.44, "refresh": 10.44}
AT_LEAST: Final = {"client_credentials": 1.25, "refresh": 1.5, "introspection": 1.0, "JWKS": 1.0}
TOKENS: Final = ("client_credentials", "refresh")


def of_growth(results: dict[str, Any]) -> list[Verdict]:
    """What is the same with many as with few differs by no more than a tenth: by the samples of each that were
    disturbed least. They are taken in turns, so that the noise of R would only be added."""
    found = {(cell["subject"], cell["path"], cell["size"]): cell["least_cpu_ms"] for cell in results["cells"]}
    verdicts = [
        Verdict(Target(f"a family in Redis, of {int(count):,}", "bytes", 300), size)
        for count, size in results["family_bytes"].items()
        if int(count) >= 1_000_000
    ]
    for path in ("refresh", "/users/me/sessions"):
        cells = {(s, size): ratio for (s, name, size), ratio in found.items() if name == path}
        for subject in dict.fromkeys(s for s, _ in cells):
            sizes = sorted(size for s, size in cells if s == subject)
            name = f"{path} with {sizes[-1]:,} {subject}, against {sizes[0]:,}"
            more = cells[subject, sizes[-1]] / cells[subject, sizes[0]]
            verdicts.append(Verdict(Target(name, "times", SAME), more))
    return verdicts


def of_peers(results: dict[str, Any]) -> list[Verdict]:
    """A factor over another server: our cost as a part of theirs, which is to be at most one through the factor."""
    ratio = {(cell["server"], cell["path"]): cell["ratio"] for cell in results["cells"]}
    servers = list(dict.fromkeys(cell["server"] for cell in results["cells"]))
    ours = servers[0]
    verdicts = [
        Verdict(
            Target(f"{path}, of {NODE}'s", "of its CPU", round(1 / factor, 3)),
            ratio[ours, path] / ratio[NODE, path],
        )
        for path, factor in AT_LEAST.items()
    ]
    for path in TOKENS:
        python = min(ratio[server, path] for server in servers if server not in {ours, NODE, FLOOR})
        verdicts += [
            Verdict(Target(f"{path}, of Glewlwyd's", "of its CPU", 0.25), ratio[ours, path] / GLEWLWYD[path]),
            Verdict(
                Target(f"{path}, of the best Authlib or django-oauth-toolkit", "of its CPU", 0.2),
                ratio[ours, path] / python,
            ),
        ]
    verdicts += [
        Verdict(Target(f"p99 of {cell['path']} at 32 connections", "ms", 20), cell["p99_ms"])
        for cell in results["cells"]
        if cell["server"] == ours and cell["path"] in TOKENS and cell["p99_ms"] is not None
    ]
    return verdicts
