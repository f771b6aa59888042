"""`tokenserver doctor`: what is wrong with a deployment and what to do; `checks` holds what is looked at."""

import threading
from collections.abc import Iterator
from queue import Empty, Queue

import click

from tokenserver.cli.checks import Check, Finding, checks_of, configuration
from tokenserver.cli.command import json_option, one_line, outage, sentence, show
from tokenserver.errors import StoreUnavailable, TokenserverError

MARKS = {"ok": "ok      ", "warning": "warning ", "fault": "FAULT   "}


@click.command(short_help="Say what is wrong and what to do.")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check configuration, stores, keys and clocks; say what is wrong and what to do. Fails on any fault.

    The server may be running or not. Nothing is changed.
    """
    findings = list(_examine())
    lines = []
    for each in findings:
        lines.append(f"{MARKS[each.status]}{each.name}: {each.detail}")
        if each.remedy:
            lines.append(f"          to do: {each.remedy}")
    show([each._asdict() for each in findings], as_json=as_json, text="\n".join(lines))
    faults = sum(each.status == "fault" for each in findings)
    if faults:
        click.echo(f"tokenserver: {faults} fault{'s' * (faults > 1)} found", err=True)
        context.exit(1)


def _examine() -> Iterator[Finding]:
    settings, found = configuration()
    yield found
    if settings is not None:
        for check in checks_of(settings):
            yield from _bounded(check)


def _bounded(check: Check) -> Iterator[Finding]:
    """What a check finds; a fault when it takes longer than it may, because what it asks doesn't answer."""
    findings: Queue[Finding | None] = Queue()

    def work() -> None:
        try:
            for finding in check.look():
                findings.put(finding)
        except Exception as error:  # noqa: BLE001 - the other checks go on
            findings.put(_failure(check, error))
        findings.put(None)

    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            finding = findings.get(timeout=check.patience)
        except Empty:
            yield Finding(check.name, "fault", f"no answer within {check.patience:.0f} s", check.remedy)
            return
        if finding is None:
            return
        yield finding


def _failure(check: Check, error: Exception) -> Finding:
    if isinstance(error, StoreUnavailable):
        return Finding(check.name, "fault", outage(error), check.remedy)
    if isinstance(error, TokenserverError):
        what, _, todo = sentence(error).partition(": ")
        return Finding(check.name, "fault", what, todo or check.remedy)
    return Finding(check.name, "fault", one_line(f"{type(error).__name__}: {error}"), check.remedy)
