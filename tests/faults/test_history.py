"""The checker of histories, by histories written by hand: it accepts what is promised and names what isn't."""

import pytest

from tests.faults.history import Broken, History, Kind, Op, Outcome, check

GRACE = 10.0


def op(kind, outcome, at, *, family="f", took=0.1, **fields):
    return Op(kind, family, outcome, at, at + took, **fields)


def issue(token, at=0.0, **fields):
    return op(Kind.ISSUE, Outcome.OK, at, successor=token, status=200, **fields)


def refresh(token, successor, at, **fields):
    return op(Kind.REFRESH, Outcome.OK, at, token=token, successor=successor, status=200, **fields)


def refused(token, at, **fields):
    return op(Kind.REFRESH, Outcome.FAIL, at, token=token, **({"status": 400} | fields))


def lost(token, at, **fields):
    return op(Kind.REFRESH, Outcome.UNKNOWN, at, token=token, **fields)


def away(token, at, retry_after="1"):
    return lost(token, at, status=503, retry_after=retry_after)


def revoke(at, outcome=Outcome.OK, **fields):
    return op(Kind.REVOKE, outcome, at, **fields)


def access(at, outcome=Outcome.OK, **fields):
    return op(Kind.ACCESS, outcome, at, **fields)


GOOD = {
    "a chain": [issue("a"), refresh("a", "b", 1), refresh("b", "c", 2), access(2.5), refresh("c", "d", 3)],
    "two tabs": [issue("a"), refresh("a", "b", 1, took=0.5), refresh("a", "b", 1.2), refresh("b", "c", 2)],
    "a lost answer": [issue("a"), lost("a", 1), away("a", 2), refresh("a", "b", 3)],
    "a retry after the grace": [issue("a"), lost("a", 1), refused("a", 1 + GRACE)],
    "a replay that was refused": [
        issue("a"),
        refresh("a", "b", 1),
        refused("a", 20, honest=False),
        refused("b", 21),
    ],
    "a revocation": [issue("a"), access(0.5), revoke(1), access(2, Outcome.FAIL), refused("a", 2)],
    "under way while it was revoked": [
        issue("a"),
        refresh("a", "b", 1, took=2),
        access(1.5, took=2),
        revoke(1, took=1),
    ],
    "a revocation of which nobody knows": [issue("a"), revoke(1, Outcome.UNKNOWN), access(2), refused("a", 3)],
    "the last probe": [issue("a"), refresh("a", "b", 1, probe=True), refresh("b", "c", 2, probe=True)],
}


@pytest.mark.parametrize("ops", GOOD.values(), ids=GOOD)
def test_what_is_promised_may_happen(ops):
    assert check(ops, grace=GRACE).violations == []


BAD = {
    "two successors": (Broken.DOUBLE_SPEND, [issue("a"), refresh("a", "b", 1), refresh("a", "c", 1)]),
    "two leaves": (
        Broken.TWO_LEAVES,
        [issue("a"), issue("b"), refresh("a", "c", 1, probe=True), refresh("b", "d", 2, probe=True)],
    ),
    "refreshed after the end": (Broken.RESURRECTED, [issue("a"), revoke(1), refresh("a", "b", 2)]),
    "accepted after the end": (Broken.RESURRECTED, [issue("a"), revoke(1), access(1.2)]),
    "consumed long ago": (Broken.RESURRECTED, [issue("a"), refresh("a", "b", 1), refresh("a", "b", 13)]),
    "grandparent within the grace": (
        Broken.RESURRECTED,
        [issue("a"), refresh("a", "b", 1), refresh("b", "c", 2), refresh("a", "b", 3, honest=False)],
    ),
    "the newest refused": (Broken.LOCK_OUT, [issue("a"), refresh("a", "b", 1), refused("b", 2)]),
    "the first refused": (Broken.LOCK_OUT, [issue("a"), refused("a", 1, status=401)]),
    "a retry within the grace refused": (Broken.LOCK_OUT, [issue("a"), lost("a", 1), refused("a", 5)]),
    "at once with a success": (Broken.LOCK_OUT, [issue("a"), refresh("a", "b", 1, took=1), refused("a", 1.5)]),
    "500": (Broken.STATUS, [issue("a"), lost("a", 1, status=500)]),
    "502": (Broken.STATUS, [access(1, Outcome.UNKNOWN, status=502)]),
    "503 without Retry-After": (Broken.STATUS, [away("a", 1, retry_after="")]),
    "503 with a Retry-After of now": (Broken.STATUS, [away("a", 1, retry_after="0")]),
    "somebody else's answer": (Broken.CROSS, [access(1, subject="bob", expected="ann")]),
}


@pytest.mark.parametrize(("rule", "ops"), BAD.values(), ids=BAD)
def test_what_may_not_happen_is_named(rule, ops):
    verdict = check(ops, grace=GRACE)
    assert {violation.rule for violation in verdict.violations} == {rule}
    assert not verdict.ok
    assert verdict.count(rule) == verdict.by_rule()[rule] == 1


def test_families_are_strangers():
    ops = [issue("a"), revoke(1), issue("b", family="g"), refresh("b", "c", 2, family="g")]
    assert check(ops, grace=GRACE).ok


def test_without_a_grace_a_token_works_once():
    ops = [issue("a"), refresh("a", "b", 1), refresh("a", "b", 1.05)]
    assert check(ops, grace=GRACE).ok
    assert check(ops, grace=0).count(Broken.DOUBLE_SPEND) == 1


def test_a_split_brain_may_be_stale_for_as_long_as_is_allowed():
    ops = [issue("a"), revoke(1, took=0), access(2.9)]
    assert check(ops, grace=GRACE, staleness=2).ok
    assert check(ops, grace=GRACE, staleness=1.5).count(Broken.RESURRECTED) == 1


def test_only_what_was_consumed_in_the_last_moments_before_a_loss_may_come_back():
    """It is counted; what was consumed earlier is a violation, and so is a revocation that comes back."""
    window = [issue("a"), refresh("a", "b", 9.5), refresh("a", "b", 30)]
    verdict = check(window, grace=GRACE, losses=[10.0])
    assert verdict.ok
    assert verdict.in_window == 1
    earlier = [issue("a"), refresh("a", "b", 8.5), refresh("a", "b", 30)]
    assert check(earlier, grace=GRACE, losses=[10.0]).count(Broken.RESURRECTED) == 1
    ended = [issue("a"), revoke(9.5, took=0), access(30)]
    assert check(ended, grace=GRACE, losses=[10.0]).count(Broken.RESURRECTED) == 1


def test_a_late_retry_is_counted_and_no_lock_out():
    verdict = check([issue("a"), lost("a", 1), refused("a", 12), refused("a", 13)], grace=GRACE)
    assert verdict.ok
    assert verdict.late_retries == 1


def test_leaves_are_what_was_given_and_not_known_to_be_consumed():
    history = History()
    for each in [issue("a"), refresh("a", "b", 1), lost("b", 2), issue("x", family="g")]:
        history.add(each)
    assert history.leaves() == {"f": ["b"], "g": ["x"]}


def test_no_token_is_told():
    """Violations are printed; whoever reads them can't spend what they name."""
    token = "rt_" + "x" * 70
    (violation,) = check([issue(token), refused(token, 1)], grace=GRACE).violations
    assert token not in violation.story
