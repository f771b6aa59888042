"""The fault plan: its experiments by their numbers, what each run of one is given, and what it hands back."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.faults.deployment import Deployment, deployed
from tests.faults.history import Broken, History, Kind, Op, Outcome, Verdict, check
from tests.faults.load import Clients, Load

GRACE: Final = 10


class NotHere(Exception):
    """The experiment needs something that this machine doesn't have; why."""


@dataclass
class Finding:
    """What an experiment found. `figures`: in the order in which they are told. `broken`: invariants that did not
    hold, one sentence each; none: it holds."""

    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def tell(self, **figures: object) -> None:
        for name, value in figures.items():
            self.figures[name.replace("_", " ")] = _shown(value)

    def require(self, holds: object, otherwise: str) -> None:
        if not holds:
            self.broken.append(otherwise)


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Experiment:
    """`does`: what is done here, scaled down where the plan takes longer. `holds`: what must."""

    number: str
    does: str
    holds: str
    run: Callable[["Run"], Finding]


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(
    number: str, does: str, holds: str
) -> Callable[[Callable[["Run"], Finding]], Callable[["Run"], Finding]]:
    def register(run: Callable[["Run"], Finding]) -> Callable[["Run"], Finding]:
        EXPERIMENTS[number] = Experiment(number, does, holds, run)
        return run

    return register


class Deployments:
    """The usual deployment, two nodes with two workers each on PostgreSQL and Redis, is started once and kept for
    the experiments that ask for nothing else and leave it whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._usual: Deployment | None = None
        self._stack = ExitStack()

    @contextmanager
    def make(self, **options: Any) -> Iterator[Deployment]:
        if options:
            with deployed(template=self.folder / "postgres-template", **options) as made:
                yield made
            return
        if self._usual is None:
            self._usual = self._stack.enter_context(deployed(template=self.folder / "postgres-template"))
        try:
            yield self._usual
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._usual = None
        self._stack.close()


@dataclass
class Run:
    """One run of one experiment."""

    number: str
    seed: int
    deployments: Deployments
    chance: random.Random = field(init=False)
    history: History = field(init=False, default_factory=History)
    _clients: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    @property
    def folder(self) -> Path:
        return self.deployments.folder

    def deployed(self, **options: Any) -> AbstractContextManager[Deployment]:
        return self.deployments.make(**options)

    @contextmanager
    def loaded(self, deployment: Deployment, **options: Any) -> Iterator[Load]:
        clients = self.clients(deployment)
        with Load(clients, **options).running() as load:
            yield load

    def clients(self, deployment: Deployment) -> Clients:
        self._clients += 1
        prefix = f"{self.number.lower()}-{self._clients}-"
        return Clients(deployment.urls, deployment.secret, self.history, self.chance, prefix=prefix)

    def verdict(self, finding: Finding, **options: Any) -> Verdict:
        """What the checker says of the history, put into the finding: the counts that are promised to be 0."""
        found = check(self.history.ops, **({"grace": GRACE} | options))
        finding.tell(
            double_spends=found.count(Broken.DOUBLE_SPEND, Broken.TWO_LEAVES),
            resurrected=found.count(Broken.RESURRECTED),
            signed_out=found.count(Broken.LOCK_OUT),
        )
        if found.count(Broken.STATUS):
            finding.tell(other_5xx=found.count(Broken.STATUS))
        if found.count(Broken.CROSS):
            finding.tell(cross_answers=found.count(Broken.CROSS))
        if found.in_window:
            finding.tell(once_more_within_the_window=found.in_window)
        if found.late_retries:
            finding.tell(retries_after_the_grace=found.late_retries)
        finding.broken += [f"{each.rule}: {each.family}: {each.story}" for each in found.violations[:10]]
        if len(found.violations) > 10:
            finding.broken.append(f"and {len(found.violations) - 10} more")
        return found

    # Figures

    def asked(self, since: float = 0.0, until: float = float("inf")) -> list[Op]:
        """What the load asked, in a span of time; not the probes."""
        kinds = {Kind.REFRESH, Kind.ACCESS}
        found = [op for op in self.history.ops if op.kind in kinds and not op.probe and since <= op.started < until]
        return sorted(found, key=lambda op: op.started)

    def refused_share(self, since: float, until: float) -> str:
        """How much of what was asked got a 503 or no answer."""
        asked = self.asked(since, until)
        return f"{100 * sum(op.outcome is Outcome.UNKNOWN for op in asked) / max(1, len(asked)):.0f} %"

    def latency(
        self, kind: Kind = Kind.REFRESH, since: float = 0.0, until: float = float("inf")
    ) -> tuple[float, float]:
        """p50 and p99 in ms, of all answers."""
        return percentiles([op.ended - op.started for op in self.asked(since, until) if op.kind is kind])

    def first_sign_in(self, healed: float) -> float:
        """Seconds from `healed` until somebody signed in, which needs both stores."""
        good = [op.ended for op in self.history.ops if op.kind is Kind.ISSUE and op.outcome is Outcome.OK]
        return min((at for at in good if at > healed), default=float("inf")) - healed

    def recovery(self, healed: float, until: float, window: float = 2.0) -> float:
        """Seconds from `healed` until 99 % of what is asked is answered, and stays so until the load ends."""
        asked = [(op.started, op.outcome is not Outcome.UNKNOWN) for op in self.asked(healed, until)]
        for start, good in asked:
            if not good:
                continue
            near = [ok for at, ok in asked if start <= at < start + window]
            rest = [ok for at, ok in asked if at >= start]
            if sum(near) >= 0.99 * len(near) and sum(rest) >= 0.99 * len(rest):
                return start - healed
        return float("inf")


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 in ms."""
    if not seconds:
        return 0.0, 0.0
    ordered = sorted(seconds)
    return 1000 * ordered[len(ordered) // 2], 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def now() -> float:
    return time.monotonic()
