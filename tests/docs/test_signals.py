"""docs/metrics.md, the alerts and the dashboard name the metrics that there are, with the labels that they have."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.interop.conftest import unavailable
from tokenserver.readiness import NEEDS
from tokenserver.signals import metrics
from tokenserver.signals.instruments import PREFIX, REGISTRY, Histogram
from tokenserver.survey import ASKED

DOCS = Path(__file__).parents[2] / "docs"
MANUAL = (DOCS / "metrics.md").read_text()
PROMETHEUS = DOCS / "deploy/prometheus"
RULES = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((DOCS / "deploy/grafana/tokenserver.json").read_text())
LABELS: dict[str, frozenset[str]] = {each.name: frozenset(each.labels) for each in REGISTRY.instruments} | {
    PREFIX + each.name: frozenset(each.labels) for each in ASKED
}
SERIES = {each.name: each for each in REGISTRY.instruments}
# Of the scrape itself.
BESIDE = {"instance", "job", "le"}
NAME = re.compile(r"\b(tokenserver_\w+)\b(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")


def queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def metric_of(series: str) -> str:
    """A histogram has three kinds of series."""
    for suffix in ("_bucket", "_sum", "_count"):
        name = series.removesuffix(suffix)
        if name != series and isinstance(SERIES.get(name), Histogram):
            return name
    return series


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queries_use_metrics_and_labels_that_there_are(where: str, query: str):
    found = NAME.findall(query)
    assert found or "up{" in query
    usable = set(BESIDE)
    for series, matchers in found:
        name = metric_of(series)
        assert name in LABELS, where
        assert (name == series) != isinstance(SERIES.get(name), Histogram), f"{where}: {series}"
        asked = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
        assert asked <= LABELS[name] | BESIDE, where
        usable |= LABELS[name]
    for group in GROUPED.findall(query):
        assert {label.strip() for label in group.split(",") if label.strip()} <= usable, where


def test_matchers_match_words_that_there_are():
    """What is known of a label from the start; `status` has classes."""
    known: dict[str, set[str]] = {}
    for each in REGISTRY.instruments:
        for values in each.known:
            for label, value in zip(each.labels, values, strict=True):
                known.setdefault(f"{each.name} {label}", set()).add(value)
    known[f"{PREFIX}requests_total status"] = set(metrics.CLASSES)
    known[f"{PREFIX}stream_lag_seconds stream"] = {"events", "rotations"}
    known[f"{PREFIX}queue_age_seconds queue"] = {"mail", "logout"}
    known[f"{PREFIX}signing_key_age_seconds state"] = {"active", "next", "retired"}
    asked = 0
    for _, query in queries():
        for series, matchers in NAME.findall(query):
            for label, value in re.findall(r'(\w+)=~?"([^"$]+)"', matchers):
                if label != "endpoint":
                    assert set(value.split("|")) <= known[f"{metric_of(series)} {label}"], (series, label)
                    asked += 1
    assert asked > 5


def test_each_metric_is_in_the_manual_with_its_labels():
    rows = dict(re.findall(r"^\| `(tokenserver_\w+)` \| ([^|]*) \|", MANUAL, re.MULTILINE))
    assert {name: frozenset(re.findall(r"`(\w+)`", labels)) for name, labels in rows.items()} == LABELS


def test_each_metric_is_on_the_dashboard():
    shown = {metric_of(series) for panel in DASHBOARD["panels"] for series, _ in NAME.findall(json.dumps(panel))}
    assert LABELS.keys() - shown == set()


def test_each_part_of_readiness_is_in_the_manual():
    section = MANUAL.partition("## Readiness")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == NEEDS.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_say_what_to_do(rule: dict[str, Any]):
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert notes["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
    assert notes["summary"]
    assert notes["description"]
    runbooks = DOCS / "runbooks.md"
    if runbooks.exists():
        assert re.search(rf"^#+ {rule['alert']}$", runbooks.read_text(), re.MULTILINE)


def test_the_scrape_configuration_asks_for_the_metrics():
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert (job["metrics_path"], job["job_name"], job["authorization"]["type"]) == (
        "/metrics",
        "tokenserver",
        "Bearer",
    )
    assert any(f'job="{job["job_name"]}"' in rule["expr"] for rule in RULES)


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")], ids=["check", "test"]
)
def test_promtool_accepts_the_rules(arguments: tuple[str, ...]):
    if shutil.which("promtool") is None:
        unavailable("alert rules are not tested: there is no promtool on the path (Debian has it in `prometheus`)")
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
