"""`tokenserver doctor`: what is wrong with a deployment and what to do; `checks` holds what is looked at."""

import threading
import time
from collections.abc import Iterator
from queue import Empty, Queue

import click

from tokenserver.cli.checks import checks_of, configuration
from tokenserver.cli.command import json_option, one_line, outage, sentence, show
from tokenserver.cli.finding import Check, Finding
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
        # At the same time: what doesn't answer is waited for once.
        for running in [_Running(check) for check in checks_of(settings)]:
            yield from running.findings()


class _Running:
    """A check in a thread of its own."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._deadline = time.monotonic() + check.patience
        self._found: Queue[Finding | None] = Queue()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        try:
            for finding in self._check.look():
                self._found.put(finding)
        except Exception as error:  # noqa: BLE001 - the other checks go on
            self._found.put(_failure(self._check, error))
        self._found.put(None)

    def findings(self) -> Iterator[Finding]:
        """Ends with a fault when the check takes longer than it may, because what it asks doesn't answer."""
        check = self._check
        while True:
            try:
                finding = self._found.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except Empty:
                yield Finding(check.name, "fault", f"no answer within {check.patience:g} s", check.remedy)
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
