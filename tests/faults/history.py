"""What clients saw, and the checker that decides whether it may have happened.

A history is a list of `Op`: who asked what when, and what came back. Tokens are opaque here; the checker knows
nothing of generations or stores, only what was acknowledged to whom. An answer that was lost, timed out or said 503
is `unknown`: what it asked for may have happened or not, at any moment from its start on.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    ISSUE = "issue"
    REFRESH = "refresh"
    REVOKE = "revoke"  # of the whole family: by revocation, logout, a changed password, a disabled account
    ACCESS = "access"  # a protected route, or introspection; `outcome` OK: accepted, or active


class Outcome(StrEnum):
    OK = "ok"
    FAIL = "fail"  # a 4xx, or `active: false`
    UNKNOWN = "unknown"


class Broken(StrEnum):
    """The rules, by what breaks them."""

    DOUBLE_SPEND = "double spend"  # one token, two different successors
    TWO_LEAVES = "two live leaves"
    RESURRECTED = "resurrected"  # accepted after its end was acknowledged, or long after it was consumed
    LOCK_OUT = "lock-out"  # an acknowledged successor didn't work for who held it
    STATUS = "5xx other than 503 with Retry-After"
    CROSS = "cross answer"  # what was A's came to B


@dataclass(frozen=True, slots=True)
class Op:
    """`family`: the chain that the asker means. `token`: presented. `successor`: the refresh token that came back.
    `subject`: whose answer it says it is; `expected`: whose it must be. `retry_after`: of a 503. `honest`: False
    for who presents what it should have forgotten. `probe`: asked at the end, when nothing else runs.
    """

    kind: Kind
    family: str
    outcome: Outcome
    started: float
    ended: float
    token: str = ""
    successor: str = ""
    status: int = 0
    retry_after: str = ""
    subject: str = ""
    expected: str = ""
    honest: bool = True
    probe: bool = False


class Violation(NamedTuple):
    rule: Broken
    family: str
    story: str


# A consumption is safe from any loss of Redis when the checkpoint that holds it is in SQL. docs/refresh-tokens.md
# promises that it is there after less than this many seconds.
CHECKPOINT_SECONDS: Final = 1.0
# Clocks of stores and clients are read at different moments of a request.
MARGIN_SECONDS: Final = 1.0


@dataclass
class Verdict:
    violations: list[Violation] = field(default_factory=list)
    # Documented, and therefore counted beside: a consumed token of the last moments before a loss that works once
    # more; a retry that came after the grace.
    in_window: int = 0
    late_retries: int = 0

    def count(self, *rules: Broken) -> int:
        return sum(1 for violation in self.violations if violation.rule in rules)

    @property
    def ok(self) -> bool:
        return not self.violations

    def by_rule(self) -> dict[Broken, int]:
        found = Counter(violation.rule for violation in self.violations)
        return {rule: found[rule] for rule in Broken}


class History:
    """Written by many threads."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._lock = threading.Lock()

    def add(self, op: Op) -> Op:
        with self._lock:
            self.ops.append(op)
        return op

    def leaves(self) -> dict[str, list[str]]:
        """The tokens of each family that were acknowledged and, as far as anybody was told, not consumed."""
        given: dict[str, dict[str, None]] = defaultdict(dict)
        spent = {op.token for op in self.ops if op.kind is Kind.REFRESH and op.outcome is Outcome.OK}
        for op in self.ops:
            if op.successor:
                given[op.family][op.successor] = None
        return {family: [token for token in tokens if token not in spent] for family, tokens in given.items()}


def check(
    ops: Iterable[Op],
    *,
    grace: float,
    losses: Sequence[float] = (),
    staleness: float = 0.0,
    loss_seconds: float = CHECKPOINT_SECONDS,
) -> Verdict:
    """`grace` of the server in s. `losses`: moments at which Redis lost writes, with what it had consumed within
    `loss_seconds` before. `staleness`: how long after its acknowledgement a revocation may go unseen."""
    ordered = sorted(ops, key=lambda op: op.started)
    verdict = Verdict()
    families: dict[str, list[Op]] = defaultdict(list)
    for op in ordered:
        families[op.family].append(op)
        _check_answer(op, verdict)
    for name, of_family in families.items():
        checker = _Family(name, of_family, grace, losses, staleness, loss_seconds, verdict)
        checker.forks()
        checker.leaves()
        checker.ends()
        checker.consumed()
        checker.lock_outs()
    return verdict


def _check_answer(op: Op, verdict: Verdict) -> None:
    if op.status >= 500 and not (op.status == 503 and op.retry_after.isdigit() and int(op.retry_after) >= 1):
        story = f"{op.kind} answered {op.status}, Retry-After {op.retry_after or 'missing'}"
        verdict.violations.append(Violation(Broken.STATUS, op.family, story))
    if op.subject and op.expected and op.subject != op.expected:
        story = f"{op.kind} of {op.expected} was answered for {op.subject}"
        verdict.violations.append(Violation(Broken.CROSS, op.family, story))


class _Family:
    def __init__(
        self,
        name: str,
        ops: list[Op],
        grace: float,
        losses: Sequence[float],
        staleness: float,
        loss_seconds: float,
        verdict: Verdict,
    ) -> None:
        self.name = name
        self.ops = ops
        self.grace = grace
        self.losses = losses
        self.staleness = staleness
        self.loss_seconds = loss_seconds
        self.verdict = verdict
        self.refreshes = [op for op in ops if op.kind is Kind.REFRESH]
        # When each token was first known to be consumed.
        self.consumed_at: dict[str, float] = {}
        self.successor: dict[str, str] = {}
        for op in sorted(self.refreshes, key=lambda op: op.ended):
            if op.outcome is Outcome.OK:
                self.consumed_at.setdefault(op.token, op.ended)
                self.successor.setdefault(op.token, op.successor)

    def broken(self, rule: Broken, story: str) -> None:
        self.verdict.violations.append(Violation(rule, self.name, story))

    def forks(self) -> None:
        successors: dict[str, set[str]] = defaultdict(set)
        uses: Counter[str] = Counter()
        for op in self.refreshes:
            if op.outcome is Outcome.OK:
                successors[op.token].add(op.successor)
                uses[op.token] += 1
        for token, given in successors.items():
            if len(given) > 1:
                self.broken(Broken.DOUBLE_SPEND, f"{_short(token)} gave {len(given)} different successors")
            elif self.grace == 0 and uses[token] > 1 and not self._lost_with(token):
                self.broken(Broken.DOUBLE_SPEND, f"{_short(token)} worked {uses[token]} times without a grace")

    def _lost_with(self, token: str) -> bool:
        return any(
            loss - self.loss_seconds < self.consumed_at[token] <= loss + MARGIN_SECONDS for loss in self.losses
        )

    def leaves(self) -> None:
        """Each was presented at the end, one after the other; a leaf that comes of another one isn't a second."""
        live = {op.token for op in self.refreshes if op.probe and op.honest and op.outcome is Outcome.OK}
        roots = live - {self.successor[token] for token in live}
        if len(roots) > 1:
            self.broken(Broken.TWO_LEAVES, f"{len(roots)} tokens were live at the end")

    def ends(self) -> None:
        acknowledged = [op.ended for op in self.ops if op.kind is Kind.REVOKE and op.outcome is Outcome.OK]
        if not acknowledged:
            return
        end = min(acknowledged)
        for op in self.ops:
            accepted = op.kind in {Kind.REFRESH, Kind.ACCESS} and op.outcome is Outcome.OK
            if accepted and op.started > end + self.staleness:
                story = f"{op.kind} accepted {op.started - end:.2f} s after the acknowledged end"
                self.broken(Broken.RESURRECTED, story)

    def consumed(self) -> None:
        for op in self.refreshes:
            if op.outcome is not Outcome.OK or op.token not in self.consumed_at:
                continue
            at = self.consumed_at[op.token]
            after = self.consumed_at.get(self.successor[op.token])
            late = op.started > at + self.grace + MARGIN_SECONDS
            grandparent = after is not None and op.started > after
            if not late and not grandparent:
                continue
            # What was lost: this token's consumption, or that of its successor.
            last = at if late else (after or at)
            if any(
                loss - self.loss_seconds < last <= loss + MARGIN_SECONDS and op.started > last
                for loss in self.losses
            ):
                self.verdict.in_window += 1
                continue
            what = f"{op.started - at:.2f} s after it was consumed" if late else "though its successor was consumed"
            self.broken(Broken.RESURRECTED, f"{_short(op.token)} accepted {what}")

    def lock_outs(self) -> None:
        """Who holds the newest token it was given, and repeats within the grace, is never refused."""
        ending = [op.started for op in self.ops if op.kind is Kind.REVOKE or not op.honest]
        end = min(ending, default=float("inf"))
        tried: dict[str, float] = {}  # when each token was first presented without a clear answer
        given = {op.successor for op in self.ops if op.successor}
        refused = False
        for op in self.refreshes:
            if not op.honest:
                continue
            first = tried.setdefault(op.token, op.started)
            if op.outcome is not Outcome.FAIL or op.token not in given or op.ended >= end or refused:
                continue
            refused = True  # a family ends once
            consumed = self.consumed_at.get(op.token)
            if consumed is not None and consumed <= op.started:
                continue  # its holder had been told of the successor
            if op.started - first >= self.grace - MARGIN_SECONDS and first < op.started:
                self.verdict.late_retries += 1
                continue
            story = f"{_short(op.token)} refused with {op.status}, {op.started - first:.2f} s after its first use"
            self.broken(Broken.LOCK_OUT, story)


def _short(token: str) -> str:
    """Enough to find it in a history; not enough to spend it."""
    return f"…{token[-6:]}"
