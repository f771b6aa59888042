"""`tokenserver audit`: reading the log, proving it, taking it elsewhere, and deleting what is old."""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

import click

from tokenserver.cli.command import json_option, one_line, opened, show

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from tokenserver.audit.models import AuditEvent
    from tokenserver.audit.verification import Finding, Report
    from tokenserver.rooms import Rooms
    from tokenserver.storage.sql import Transaction

POLL_SECONDS: Final = 1.0
# What was committed so long after it happened is still shown by --follow.
LATE: Final = timedelta(seconds=15)
AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.group()
def audit() -> None:
    """The audit log: who did what, and the proof that nobody changed it."""


# Reading


class Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if ago := AGO.fullmatch(value):
                return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail("must be a time such as 2026-01-31T08:00:00Z, or an age such as 15m, 6h or 2d", param, ctx)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@audit.command()
@click.option(
    "-n", "--lines", type=click.IntRange(0, 10_000), default=20, show_default=True, help="The last so many events."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--actor", help="Only of this user's or client's id; `cli` for commands.")
@click.option("--action", help="Only events of this name, such as session:started.")
@click.option("--outcome", help="Only with this outcome: success, denied or failed.")
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Only from this time on: RFC 3339, or 15m, 6h, 2d ago."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of text.")
def tail(
    lines: int,
    follow: bool,
    actor: str | None,
    action: str | None,
    outcome: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """Show the newest events, the newest last."""
    with opened() as rooms:
        from tokenserver.audit.models import AuditEvent

        columns = ((AuditEvent.actor, actor), (AuditEvent.event, action), (AuditEvent.outcome, outcome))
        wanted = [column == value for column, value in columns if value is not None]
        if since is not None:
            wanted.append(AuditEvent.at >= since)
        with suppress(KeyboardInterrupt):
            for event in _events(rooms, wanted, lines, follow=follow):
                click.echo(json.dumps(_body(event)) if as_json else _line(_body(event)))


def _events(
    rooms: "Rooms", wanted: "list[ColumnElement[bool]]", lines: int, *, follow: bool
) -> "Iterator[AuditEvent]":
    from sqlalchemy import select

    from tokenserver.audit.models import AuditEvent

    newest_first = select(AuditEvent).where(*wanted).order_by(AuditEvent.at.desc(), AuditEvent.id.desc())

    def late(tx: "Transaction") -> "list[AuditEvent]":
        edge = AuditEvent.at >= datetime.now(UTC) - LATE
        return list(tx.scalars(select(AuditEvent).where(*wanted, edge).order_by(AuditEvent.at, AuditEvent.id)))

    found, before = rooms.database.read(lambda tx: (tx.scalars(newest_first.limit(lines)).all(), late(tx)))
    yield from reversed(found)
    while follow:
        time.sleep(POLL_SECONDS)
        known = {event.id for event in before}
        before = rooms.database.read(late)
        yield from (event for event in before if event.id not in known)


def _body(event: "AuditEvent") -> dict[str, Any]:
    from tokenserver.audit.chain import NAMES

    at = event.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {name: getattr(event, name) for name in NAMES} | {"id": str(event.id), "at": at}


def _line(body: Mapping[str, Any]) -> str:
    shown = {"client_id": "client", "address": "from"}
    parts = [body["at"], body["event"], body["outcome"]]
    names = ("reason", "actor", "client_id", "address", "method", "path", "target", "request_id")
    parts += [f"{shown.get(name, name)}={body[name]}" for name in names if body[name] is not None]
    if body["details"]:
        parts.append(json.dumps(body["details"]))
    return _printable(" ".join(parts))


def _printable(text: str) -> str:
    # What a stranger sent must not steer the terminal.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# Proving


@audit.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    help="Where to; `-`, which is the default, for stdout.",
)
@click.option("--no-checkpoint", is_flag=True, help="Don't make a checkpoint first: nothing is written to the log.")
def export(output: str, no_checkpoint: bool) -> None:
    """Write the whole log as JSON Lines, to be kept elsewhere and verified with the JWKS alone.

    A checkpoint is made first, so that all of it is vouched for.
    """
    with opened() as rooms:
        from tokenserver.audit.export import write_export
        from tokenserver.audit.log import Log
        from tokenserver.errors import StoreUnavailable

        if not no_checkpoint:
            rooms.sealer.seal(everything=True)
        with _written(output) as file:
            attempts = count()

            def work(tx: "Transaction") -> None:
                log = Log(tx)
                if next(attempts):  # the database asks to begin again
                    if file is sys.stdout:
                        raise StoreUnavailable("sql", "the export was interrupted")
                    file.seek(0)
                    file.truncate()
                write_export(log, rooms.settings.issuer, file.write)

            rooms.database.read(work)


@contextmanager
def _written(output: str) -> Iterator[IO[str]]:
    """A failure leaves no file, and leaves the one that was there."""
    if output == "-":
        yield sys.stdout
        return
    path = Path(output)
    if path.exists() and not path.is_file():
        raise click.FileError(output, "is no regular file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner alone
    except OSError as error:
        raise click.FileError(output, error.strerror) from None
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@audit.command()
@click.option(
    "--export", "file", type=click.File("rb"), metavar="FILE", help="An export instead of the log itself."
)
@click.option("--jwks", metavar="FILE|URL", help="The JWK Set to trust for --export: a file, an https URL.")
@json_option
@click.pass_context
def verify(context: click.Context, file: BinaryIO | None, jwks: str | None, as_json: bool) -> None:
    """Find what was changed, removed, inserted, reordered or cut off. Fails on any finding.

    Without --export it is the log in the database, with the keys of this deployment. With --export neither database
    nor Redis nor keys are needed.
    """
    from tokenserver.audit.verification import verify as verified

    if (file is None) != (jwks is None):
        raise click.UsageError("Give --export and --jwks together, or neither.")
    if file is not None and jwks is not None:
        from tokenserver.audit.export import ExportFile

        keys = _read_jwks(jwks)
        export = ExportFile(file)
        report = verified(export, keys, export.issuer)
    else:
        with opened() as rooms:
            from tokenserver.audit.log import Log

            trusted, issuer = rooms.keys.jwks(), rooms.settings.issuer
            report = rooms.database.read(lambda tx: verified(Log(tx), trusted, issuer))
    show(report.to_json(), as_json=as_json, text="\n".join(_told(report)))
    if not report.ok:
        click.echo(f"tokenserver: the log does not verify: {_counted(report.found, 'finding')}", err=True)
        context.exit(1)


def _read_jwks(place: str) -> dict[str, Any]:
    from http.client import HTTPException

    from tokenserver.verify import https
    from tokenserver.verify.json_object import json_object

    try:
        text = https.fetch(place).body if "://" in place else Path(place).read_bytes()
        jwks = json_object(text)
        if not isinstance(jwks.get("keys"), list):
            raise ValueError("not a JWK Set")  # noqa: TRY004 - one exception for all bad input
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(f"--jwks: {one_line(str(reason))}") from None
    return jwks


def _told(report: "Report") -> Iterator[str]:
    for each in report.findings:
        yield _printable(f"{each.code}: {_place(each)}{each.message}")
    if report.found > len(report.findings):
        yield f"and {report.found - len(report.findings)} more"
    counts = _counted(report.events, "event"), _counted(report.chains, "chain")
    yield f"{counts[0]} in {counts[1]}, {_counted(report.checkpoints, 'checkpoint')}"
    if report.unsealed:
        yield f"{_counted(report.unsealed, 'event')} since the last checkpoint: chained, not vouched for yet"
    if report.pruned:
        yield f"{_counted(report.pruned, 'event')} pruned before"
    if report.unchained:
        yield f"{_counted(report.unchained, 'event')} from before there were chains: nothing proves them"
    if report.ok:
        yield "nothing was changed, removed, inserted, reordered or cut off"


def _place(finding: "Finding") -> str:
    if finding.checkpoint is not None:
        return f"checkpoint {finding.checkpoint}: "
    return f"chain {finding.chain}: " if finding.chain is not None else ""


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


# Deleting


@audit.command()
@click.option(
    "--older-than", type=click.IntRange(1, 36_500), required=True, metavar="DAYS", help="Delete what is older."
)
@json_option
def prune(older_than: int, as_json: bool) -> None:
    """Delete old events; a signed stub keeps the rest provable. What does not verify is kept."""
    with opened() as rooms:
        pruned = rooms.retention.prune(datetime.now(UTC) - timedelta(days=older_than))
    show({"pruned": pruned}, as_json=as_json, text=f"{_counted(pruned, 'event')} deleted")
