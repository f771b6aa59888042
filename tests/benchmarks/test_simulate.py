"""The model of large deployments: its arithmetic, and that simulated queues say the same."""

import pytest

from benchmarks.simulate import (
    Costs,
    Deployment,
    Resource,
    checked,
    report,
    resources,
    sessions_at,
    sessions_in_redis,
    simulate,
)

COSTS = Costs(
    node_ms=1.0,
    redis_ms=0.04,
    sql_read_ms=0.05,
    carry_ms=0.2,
    sql_write_ms=0.1,
    family_bytes=250,
    session_bytes=800,
)


def limits(**deployment):
    return {each.name: each.limit for each in resources(COSTS, Deployment(**deployment))}


def test_limits_are_time_over_cost():
    found = limits(nodes=100, cores=2, redis_masters=16, sql_nodes=10, sql_cores=8, cockroach=4, replicas=3)
    assert found["nodes"] == pytest.approx(200_000)
    assert found["Redis masters"] == pytest.approx(400_000)
    assert found["the process that carries into SQL"] == pytest.approx(5_000)
    # 80 cores, and 4 × (0.05 + 3 × 0.1) ms for each.
    assert found["CockroachDB"] == pytest.approx(80_000 / 1.4)


@pytest.mark.parametrize(("masters", "busiest"), [(1, 16), (3, 6), (5, 4), (16, 1), (20, 1)])
def test_the_master_with_the_most_buckets_is_the_limit(masters, busiest):
    assert limits(redis_masters=masters)["Redis masters"] == pytest.approx(25_000 * 16 / busiest)


def test_sessions_follow_from_the_rate_and_from_memory():
    deployment = Deployment(redis_masters=4, redis_gb=8, interval=300)
    assert sessions_at(1000, deployment) == 300_000
    assert sessions_in_redis(COSTS, deployment) == pytest.approx(4 * 8e9 / 2 / 250)


def test_below_the_limit_nothing_piles_up_and_above_it_does_where_the_model_says():
    stages = [Resource("wide", 10, 2, 2.0, 1 / 10), Resource("narrow", 1, 1, 1.0, 1.0, behind=True)]
    first, below, above = checked(stages, 10.0)
    assert (first.name, first.limit) == ("narrow", 1000)
    assert below.busy[1] == pytest.approx(0.9, abs=0.05)
    assert below.waiting[1] < 200
    # A tenth more than 1,000 a second, for 10 s.
    assert above.waiting[1] == pytest.approx(1000, abs=400)
    assert above.waiting[0] < 50


def test_an_uneven_share_makes_one_unit_busy():
    outcome = simulate([Resource("skewed", 4, 1, 1.0, 0.5)], rate=3000, seconds=2)
    # Its first unit gets 1,500 a second, and does 1,000.
    assert outcome.waiting[0] == pytest.approx(1000, abs=250)


def test_answers_wait_for_what_comes_before_them_alone():
    stages = [Resource("node", 1, 1, 1.0, 1.0), Resource("late", 1, 1, 100.0, 1.0, behind=True)]
    outcome = simulate(stages, rate=10, seconds=5)
    assert outcome.p50_ms == pytest.approx(1.0)


def test_the_report_names_what_gives_out_first():
    text = report(COSTS, Deployment())
    assert "| the process that carries into SQL | 1 of 1 | 0.200 | 5,000 | 3,500 | 1.1 million |" in text
    assert "as it is: the process that carries into SQL" in text
