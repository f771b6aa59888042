"""docs/runbooks.md: each incident has its four parts, each alert its heading, and each command runs."""

import json
import re
import shlex

import pytest
import yaml

from tests.docs.fences import ROOT, anchors, prose, read
from tests.live_server import PASSWORD

PAGE = ROOT / "docs" / "runbooks.md"
ALERTS = ROOT / "docs" / "deploy" / "prometheus" / "alerts.yml"
PARTS = ["**You notice.**", "**Meanwhile the server**", "**Do.**", "**Over when**"]
# Tells of another one instead.
WITHOUT_PARTS = "The secret of refresh tokens has leaked"
COMMAND = re.compile(r"^ *(tokenserver .+)$", re.MULTILINE)
SHELL = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOBODY = "00000000-0000-0000-0000-000000000000"


def incidents():
    """Title to text."""
    parts = re.split(r"^## (.+)$", read(PAGE), flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title != "Alerts"}


@pytest.mark.parametrize("title", incidents())
def test_an_incident_has_its_four_parts(title):
    if title != WITHOUT_PARTS:
        found = [incidents()[title].find(part) for part in PARTS]
        assert -1 not in found
        assert found == sorted(found)


def rules():
    return [rule for group in yaml.safe_load(read(ALERTS))["groups"] for rule in group["rules"] if "alert" in rule]


def test_every_alert_leads_to_a_heading():
    headings = re.findall(r"^### (Tokenserver\w+)$", read(PAGE), re.MULTILINE)
    assert len(headings) >= 20
    assert sorted(headings) == sorted(rule["alert"] for rule in rules())
    for rule in rules():
        path, _, fragment = rule["annotations"]["runbook_url"].partition("#")
        assert path.endswith("docs/runbooks.md")
        assert fragment in anchors(PAGE)


def test_incidents_name_alerts_that_there_are():
    headings = set(re.findall(r"^### (Tokenserver\w+)$", read(PAGE), re.MULTILINE))
    assert set(re.findall(r"`(Tokenserver\w+)`", prose(PAGE))) <= headings


def commands():
    return [command for block in SHELL.findall(read(PAGE)) for command in COMMAND.findall(block)]


def test_the_commands_run(deployment):
    """In the order of the page, on a deployment of their own, whose keys one of them throws away."""
    ann = ("--username", "ann", "--email", "ann@example.org", "--password-stdin")
    assert deployment.run("user", "create", *ann, stdin=f"{PASSWORD}\n").code == 0
    app = ("--id", "app", "--name", "app", "--grant", "client_credentials", "--scope", "users:read")
    assert deployment.run("client", "create", *app).code == 0
    assert len(commands()) > 20
    for command in commands():
        done = deployment.run(*shlex.split(command)[1:])
        assert (done.code, done.err) == (0, ""), command
        if command == "tokenserver user list":
            assert "ann" in done.out
        if command == "tokenserver keys rotate --emergency":
            assert "everybody signs in again" in done.out
    assert (deployment.folder / "evidence.jsonl").stat().st_size > 0
    actions = {event["event"] for event in logged(deployment)}
    assert {"signing_key:rotated", "user:disabled", "user:enabled", "client:secret_rotated"} <= actions


def logged(deployment):
    return [json.loads(line) for line in deployment.run("audit", "tail", "--json", "-n", "1000").out.splitlines()]


def test_nobody_is_a_placeholder():
    assert any(NOBODY in command for command in commands())
